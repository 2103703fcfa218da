"""Find what is wrong with a set of images, and show it: damaged files, duplicates, leaks, wrong labels and more."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from torchstone.cli._options import JSON


def command(
    data: Annotated[str, typer.Argument(metavar="DATA", help="A folder of images, or another source.")],
    out: Annotated[Path | None, typer.Option(help="Where it is written [default: runs/audits/NAME].")] = None,
    fix: Annotated[bool, typer.Option("--fix", help="Write a cleaned catalog; the images stay as they are.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Leave out the checks that need a network's view.")] = False,
    json: JSON = False,
) -> int:
    from torchstone.cli import _answers
    from torchstone.stages.audit import audit

    return _answers.audit(audit(data, out=out, fix=fix, quick=quick), json)
