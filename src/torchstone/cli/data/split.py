"""Read and split the images and keep the tables: catalog.parquet, split.parquet (item, part, sha256), findings.json.

With more images the same command keeps every image where it was and shares out the new ones; 'run' and 'train' with the
same seed and fractions make the same split."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from torchstone.cli._options import JSON
from torchstone.data.split.cut import DESCRIPTION, By


def command(
    data: Annotated[str, typer.Argument(help="A folder of images, or any other source that 'run' takes.")],
    *,
    out: Annotated[Path, typer.Option(help="Directory that the tables are written to.")],
    seed: Annotated[int, typer.Option(min=0, help="Another seed is another split.")] = 0,
    by: Annotated[
        By,
        typer.Option(help=f"{DESCRIPTION}."),
    ] = "quota",
    test_fraction: Annotated[float, typer.Option(help="Of all images, if the source has no test part.")] = 0.2,
    val_fraction: Annotated[float, typer.Option(help="Of the images that are not test.")] = 0.1,
    calib_fraction: Annotated[float, typer.Option(help="Of the images that are not test.")] = 0.05,
    previous: Annotated[
        Path | None,
        typer.Option(
            help="A split.parquet to go on from; by default that of --out, if it was made with these options."
        ),
    ] = None,
    json: JSON = False,
) -> int:
    from torchstone.cli.data import _answers
    from torchstone.stages.versions import split

    made = split(
        data,
        out,
        previous=previous,
        seed=seed,
        by=by,
        test_fraction=test_fraction,
        val_fraction=val_fraction,
        calib_fraction=calib_fraction,
    )
    return _answers.split(made, json)
