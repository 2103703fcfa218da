"""Show the recipes of a training: what they are for, or one of them as a TOML file to start from.

A recipe is what --recipe takes, and --set changes any of its options:
torchstone train DATA --recipe finetune --set ema=0.99 --set freeze=backbone"""

from __future__ import annotations

from typing import Annotated

import typer

from torchstone.cli._options import JSON


def command(
    name: Annotated[str | None, typer.Argument(metavar="[RECIPE]", help="A name, or a TOML file.")] = None,
    json: JSON = False,
) -> int:
    from torchstone.cli import _recipes

    return _recipes.recipes(name, json)
