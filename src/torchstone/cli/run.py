"""All of it: read, split, train, compress, judge, bundle, report.

The same command finds the same run: it skips what is done and goes on where it was stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torchstone.cli._options import with_settings
from torchstone.config import SEARCHING


@with_settings(*SEARCHING)
def command(given: dict[str, Any], config: Path | None, json: bool) -> int:
    from torchstone import pipeline
    from torchstone.cli import _answers
    from torchstone.config import settings

    chosen = settings(given, config)
    return _answers.verdict(pipeline.run(chosen), chosen.run, json)
