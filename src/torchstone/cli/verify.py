"""Recompute every number of a verdict from the stored predictions and timings, and check every file of the bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from torchstone.cli._options import JSON


def command(run: Annotated[Path, typer.Argument(help="A run, such as runs/NAME.")], json: JSON = False) -> int:
    from torchstone.cli import _answers
    from torchstone.core.run import Run
    from torchstone.judge.verify import verify

    return _answers.mismatches(verify(Run(run)), json)
