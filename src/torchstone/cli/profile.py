"""Say where a model's time goes: by operator and by layer, against what this machine can do, and what to try next.

MODEL is a run, an artifact, a bundle, or an architecture such as resnet18 (with random weights); @RUNTIME behind it
names torch, onnxruntime or openvino."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from torchstone.cli._options import JSON


def command(
    model: Annotated[str, typer.Argument(help="A run, artifact, bundle or architecture; with @RUNTIME if wanted.")],
    *,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the model.")] = 1,
    batch: Annotated[int, typer.Option(min=1, help="Images a call.")] = 1,
    precision: Annotated[
        Literal["f32", "bf16"] | None, typer.Option(help="Arithmetic; by default what the model was made for.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="An .html file [default: runs/profiles/MODEL.html].")] = None,
    json: JSON = False,
) -> int:
    from torchstone.cli import _profiles
    from torchstone.core import interrupts
    from torchstone.stages.profile import Options, profile

    options = Options(threads=threads, batch=batch, precision=precision)
    with interrupts.prompt():
        found = profile(model, options, out=out)
    return _profiles.profile(found, json)
