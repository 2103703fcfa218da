"""Say what became of the images between two versions of a data set: added, removed, relabelled, changed, moved.

Each version is a folder or file of images, a saved catalog.parquet, or a directory that holds one: a run, or what
'torchstone data split' wrote. Images are told by their pixels. Exit code 0: the same; 1: they differ."""

from __future__ import annotations

from typing import Annotated

import typer

from torchstone.cli._options import JSON


def command(
    before: Annotated[str, typer.Argument(metavar="A", help="The earlier version.")],
    after: Annotated[str, typer.Argument(metavar="B", help="The later version.")],
    json: JSON = False,
) -> int:
    from torchstone.cli.data import _answers
    from torchstone.stages.versions import diff

    return _answers.difference(diff(before, after), json)
