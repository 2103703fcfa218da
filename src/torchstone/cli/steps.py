"""Show the steps of a chain: what each does, or one of them with its options.

A chain is what compress, judge and run take, such as prune=0.3+finetune=2+int8@openvino:
step[=value][:option=value,...][@target]+..."""

from __future__ import annotations

from typing import Annotated

import typer

from torchstone.cli._options import JSON


def command(
    name: Annotated[str | None, typer.Argument(metavar="[STEP]", help="One of them.")] = None,
    json: JSON = False,
) -> int:
    from torchstone.cli import _steps

    return _steps.steps(name, json)
