"""List the networks by family: parameters, operations, input size; with --measure, how long one image takes here.

PATTERN is part of a name or a family, such as resnet or efficientnet, or any name that --model takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from torchstone.cli._options import JSON


def command(
    pattern: Annotated[str | None, typer.Argument(help="Part of a name or family, or a pattern with * and ?.")] = None,
    *,
    measure: Annotated[bool, typer.Option("--measure", help="Export each network and time it on one image.")] = False,
    runtime: Annotated[str, typer.Option(help="torch, onnxruntime or openvino.")] = "openvino",
    threads: Annotated[int, typer.Option(min=1, help="Threads of each network.")] = 1,
    precision: Annotated[Literal["f32", "bf16"], typer.Option(help="Arithmetic.")] = "f32",
    out: Annotated[Path | None, typer.Option(help="An .html file that compares them.")] = None,
    json: JSON = False,
) -> int:
    from torchstone.cli import _profiles
    from torchstone.evaluate.relative import Options
    from torchstone.stages.models import models

    options = Options(runtime=runtime, threads=threads, precision=precision) if measure else None
    return _profiles.models(models(pattern, measure=options, out=out), out, json)
