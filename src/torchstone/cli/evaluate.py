"""Measure a model: top-1 and top-5, F1, AUROC, calibration error, recall of every class, what is confused with what.

MODEL is a run, an artifact below runs/NAME/artifacts or a bundle, with @RUNTIME behind it if wanted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from torchstone.cli._options import JSON


def command(
    model: Annotated[str, typer.Argument(help="A run, an artifact or a bundle; @RUNTIME behind it if wanted.")],
    data: Annotated[str | None, typer.Argument(help="Other images; by default those of the run.")] = None,
    part: Annotated[
        Literal["train", "val", "calib", "test"] | None,
        typer.Option(
            help="Part of the run's own split, val by default; a figure on test is a look at it, and is counted."
        ),
    ] = None,
    predictions: Annotated[
        Path | None, typer.Option(help="Parquet file to write every answer to: evidence for judge --evidence.")
    ] = None,
    json: JSON = False,
) -> int:
    from torchstone.cli import _answers
    from torchstone.core import interrupts
    from torchstone.stages.evaluate import evaluate

    with interrupts.prompt():
        found = evaluate(model, data, part, predictions)
    return _answers.evaluation(found, json)
