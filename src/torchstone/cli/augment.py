"""Show what an augmentation policy does to your images: a contact sheet, as PNG or HTML."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from torchstone.cli._options import JSON
from torchstone.data.augment import DESCRIPTION


def command(
    data: Annotated[str, typer.Argument(metavar="DATA", help="A folder of images, or another source.")],
    policy: Annotated[str, typer.Option(help=DESCRIPTION)] = "standard",
    out: Annotated[
        Path | None, typer.Option(help="A .png or .html file [default: runs/sheets/DATA-POLICY.png].")
    ] = None,
    images: Annotated[int, typer.Option(help="Images shown, of as many classes as there are.")] = 6,
    views: Annotated[int, typer.Option(help="Epochs shown of each.")] = 7,
    size: Annotated[int | None, typer.Option(help="Pixels a side that the network sees.", min=8)] = None,
    seed: Annotated[int, typer.Option(help="Of the training.", min=0)] = 0,
    json: JSON = False,
) -> int:
    from torchstone.cli import _answers
    from torchstone.stages.augment import Options, augment

    options = Options(policy=policy, images=images, views=views, size=size, seed=seed)
    return _answers.written(augment(data, options, out=out), json)
