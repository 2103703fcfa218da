"""Measure a model: top-1 and top-5, F1, recall of every class, what is confused with what.

MODEL is a run or an artifact below runs/NAME/artifacts, with @RUNTIME behind it if wanted."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from torchstone.cli._options import JSON


def command(
    model: Annotated[str, typer.Argument(help="A run, or an artifact; @RUNTIME behind it if wanted.")],
    data: Annotated[str | None, typer.Argument(help="Other images; by default those of the run.")] = None,
    part: Annotated[
        Literal["train", "val", "calib", "test"] | None,
        typer.Option(help="Part of the run's own split, val by default; test once it has met a judge."),
    ] = None,
    json: JSON = False,
) -> int:
    from torchstone.cli import _answers
    from torchstone.stages.evaluate import evaluate

    return _answers.evaluation(evaluate(model, data, part), json)
