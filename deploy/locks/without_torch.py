"""Print a lock file without torch, torchvision and what only builds of torch for CUDA need: for an image whose torch
comes from another index."""

from __future__ import annotations

import re
import sys
from pathlib import Path

CUDA = re.compile(r"(torch|torchvision|triton|nvidia-[a-z0-9-]+|cuda-[a-z]+)==")


def without(lines: list[str]) -> list[str]:
    """Requirements with their hashes, which stand in the lines behind them."""
    kept, keep = [], True
    for line in lines:
        if not line.startswith((" ", "\t")):
            keep = not CUDA.match(line)
        if keep:
            kept.append(line)
    return kept


if __name__ == "__main__":
    sys.stdout.writelines(without(Path(sys.argv[1]).read_text().splitlines(keepends=True)))
