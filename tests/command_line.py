"""The command line, as a user types it or without waiting for another Python."""

from __future__ import annotations

import io
import shlex
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import typer

from torchstone import cli
from torchstone.cli import app

SMALL = (
    "run", "digits", "--name", "small", "--model", "lenet5", "--epochs", "6", "--test-fraction", "0.36",
    "--max-drop", "3", "--chain", "onnx", "--chain", "int8@onnxruntime",
)  # fmt: skip


def torchstone(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """What a command prints and its exit code. It runs in this process: one of its own takes seconds to import PyTorch,
    and ``started`` is there for what only that can show."""
    out, err = io.StringIO(), io.StringIO()
    given = [str(argument) for argument in arguments]
    with redirect_stdout(out), redirect_stderr(err), chdir(cwd or Path.cwd()), pytest.raises(SystemExit) as ended:
        app(args=given, prog_name="torchstone")
    code = ended.value.code
    assert isinstance(code, int)
    return subprocess.CompletedProcess(given, code, out.getvalue(), err.getvalue())


def started(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command line as a user types it, in a process of its own."""
    command = [sys.executable, "-m", "torchstone", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=300)


def parsed(command: str) -> tuple[str, dict[str, Any]]:
    """The verb and its arguments as the command line takes them; nothing is run."""
    program, *arguments = shlex.split(command)
    assert program == "torchstone"
    group: Any = typer.main.get_command(cli.app)
    context = group.context_class(group, info_name=program)
    words = []
    while hasattr(group, "resolve_command"):
        name, group, arguments = group.resolve_command(context, arguments)
        words.append(name)
        if not hasattr(group, "resolve_command"):
            context = group.make_context(name, arguments, parent=context)
    return " ".join(words), context.params
