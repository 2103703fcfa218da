"""All of it: read, split, train, compress, judge, bundle, report.

The same command finds the same run: it skips what is done and goes on where it was stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from torchstone.cli._options import with_settings
from torchstone.config import SEARCHING

DRY_RUN = Annotated[
    bool, typer.Option("--dry-run", help="Show the chains that would be tried, step by step; train and build nothing.")
]


@with_settings(*SEARCHING, dry_run=DRY_RUN)
def command(given: dict[str, Any], config: Path | None, json: bool, *, dry_run: bool) -> int:
    from torchstone import pipeline
    from torchstone.cli import _answers, _plans
    from torchstone.config import settings

    chosen = settings(given, config)
    if dry_run:
        return _plans.foreseen(*pipeline.foresee(chosen), json=json)
    return _answers.verdict(pipeline.run(chosen), chosen.run, json)
