"""Train or fine-tune a model on a folder of images; an interrupted training goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torchstone.cli._options import with_settings
from torchstone.config import JUDGING


@with_settings(*JUDGING)
def command(given: dict[str, Any], config: Path | None, json: bool) -> int:
    from torchstone.cli import _answers
    from torchstone.config import settings
    from torchstone.stages.train import train

    chosen = settings(given, config)
    return _answers.artifact(train(chosen), json)
