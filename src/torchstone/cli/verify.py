"""Recompute every number of a verdict from the stored predictions and timings, and check every file of the bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from torchstone.cli._options import JSON


def command(
    place: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run, such as runs/NAME, or what judge --evidence --out wrote.")
    ],
    json: JSON = False,
) -> int:
    from torchstone.cli import _answers
    from torchstone.core.run import Run
    from torchstone.judge import evidence_directory
    from torchstone.judge.verify import verify

    found = evidence_directory.verify(place) if evidence_directory.is_one(place) else verify(Run(place))
    return _answers.mismatches(found, json)
