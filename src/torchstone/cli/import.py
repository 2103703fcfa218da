"""Import a model that was made elsewhere, ONNX or TensorFlow Lite: a run and a bundle of it, proven on golden images.

With labelled samples, the preprocessing that is declared is tried against likely others; where one of them is better by
more than chance, you are warned. Samples that can be split are the run's data: the model can then be compressed and
judged like one that was trained here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from torchstone.cli._options import JSON, RUNS


def command(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A file: model.onnx or model.tflite.")],
    *,
    preprocess: Annotated[
        str,
        typer.Option(
            metavar="NAME|FILE",
            help="imagenet, inception (-1 to 1), unit (0 to 1), raw (0 to 255), caffe (BGR, 0 to 255 less the mean), "
            "or a TOML file of size, resize, resize_mode, interpolation, colour, layout, scale, mean, std.",
        ),
    ],
    labels: Annotated[
        Path | None, typer.Option(help="Names of the classes: a line each, or JSON; by default their numbers.")
    ] = None,
    samples: Annotated[
        str | None, typer.Option(help="Labelled images: any source, its classes named by the labels or their numbers.")
    ] = None,
    output: Annotated[str | None, typer.Option(help="The output that has the scores, where there are several.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run; by default that of the file.")] = None,
    runs: RUNS = Path("runs"),
    json: JSON = False,
) -> int:
    from torchstone.cli import _imported
    from torchstone.core.run import Run, slug
    from torchstone.stages.adopt import adopt

    run = Run(runs / slug(name or model.stem))
    found = adopt(model, preprocess=preprocess, labels=labels, samples=samples, output=output, run=run)
    return _imported.printed(found, json=json)
