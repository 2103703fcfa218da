"""Say what is wrong with a folder of images: unreadable files, duplicates, contradicting labels, leaks, imbalance."""

from __future__ import annotations

from typing import Annotated

import typer

from torchstone.cli._options import JSON


def command(
    data: Annotated[str, typer.Argument(help="A folder of images, or 'digits'.")],
    json: JSON = False,
) -> int:
    from torchstone.cli import _answers
    from torchstone.stages.read import audit

    return _answers.findings(audit(data), json)
