"""Make a model smaller or faster by chains of steps, such as prune=0.3+finetune=2+int8@openvino.

Nothing is judged yet: torchstone judge says what each is worth. torchstone steps shows what a chain is made of."""

from __future__ import annotations

from typing import Annotated

import typer

from torchstone.cli._options import JSON


def command(
    model: Annotated[str, typer.Argument(help="A run, or a torch artifact below runs/NAME/artifacts.")],
    chains: Annotated[list[str], typer.Argument(metavar="CHAIN...", help="step[=value][:key=value,...][@target]+...")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show each step, what it needs and how long it will take; build nothing.")
    ] = False,
    json: JSON = False,
) -> int:
    from torchstone.cli import _answers, _plans
    from torchstone.stages.compress import compress, foresee

    if dry_run:
        return _plans.foreseen(foresee(model, chains), json=json)
    return _answers.candidates(compress(model, chains), json)
