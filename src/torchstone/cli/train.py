"""Train or fine-tune a model on a folder of images; an interrupted training goes on.

What a training does is a recipe ('torchstone recipes'), and --set changes any of its options."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from torchstone.cli._options import with_settings
from torchstone.config import JUDGING, SEARCHING

FIND_LR = Annotated[
    bool, typer.Option("--find-lr", help="Train nothing: propose a learning rate by a range test, and draw its curve.")
]


@with_settings(*JUDGING, *SEARCHING, find_lr=FIND_LR)
def command(given: dict[str, Any], config: Path | None, json: bool, *, find_lr: bool) -> int:
    from torchstone.cli import _answers, _recipes
    from torchstone.config import settings
    from torchstone.stages.train import find_rate, train

    chosen = settings(given, config)
    if find_lr:
        return _recipes.rate(*find_rate(chosen), json)
    artifact = train(chosen)
    first = os.environ.get("RANK", "0") == "0"  # of those that torchrun started: one answers
    return _answers.artifact(artifact, chosen, json) if first else 0
