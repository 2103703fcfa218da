"""The command line as a user types it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SMALL = (
    "run", "digits", "--name", "small", "--model", "lenet5", "--epochs", "6", "--test-fraction", "0.36",
    "--max-drop", "3", "--chain", "onnx", "--chain", "int8@onnxruntime",
)  # fmt: skip


def torchstone(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command line as a user types it."""
    command = [sys.executable, "-m", "torchstone", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=300)
