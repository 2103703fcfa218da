"""Search the values of a recipe's options: the same command, typed anywhere, joins the same study.

The ranges stand in the [search] table of the recipe's TOML file; the recipes by name have usual ones. A killed search
goes on when the command is typed again, or in the hands of its other workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torchstone.cli._options import with_settings
from torchstone.config import JUDGING


@with_settings(*JUDGING)
def command(given: dict[str, Any], config: Path | None, json: bool) -> int:
    from torchstone.cli import _answers
    from torchstone.config import settings
    from torchstone.stages.search import search

    return _answers.search(search(settings(given, config)), json)
