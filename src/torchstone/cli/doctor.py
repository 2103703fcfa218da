"""Say what this machine can do, what is wrong with it, and how to mend it.

With --against, what differs from the machine that a result was made on, and which of it can change its numbers. With
--model, whether a training of it fits into the memory."""

from __future__ import annotations

from typing import Annotated

import typer

from torchstone.cli._options import JSON
from torchstone.core.errors import ConfigError


def command(
    *,
    against: Annotated[
        str | None, typer.Option(metavar="RUN", help="A run, or a directory of evidence, to compare this machine with.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Would a training of this network fit into the memory? With --batch and --crop.")
    ] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Images at once, of --model; 64 by default.")] = None,
    crop: Annotated[int | None, typer.Option(min=8, help="Pixels a side, of --model; by default its own.")] = None,
    skip: Annotated[
        list[str] | None,
        typer.Option(metavar="CHECK", help="Leave a check out, such as 'neighbour' on a CI runner; repeatable."),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 at a warning, too: for CI.")] = False,
    json: JSON = False,
) -> int:
    from torchstone.cli import _answers
    from torchstone.core import environment
    from torchstone.doctor import Machine, _against, _fits, doctor

    if against is not None and model is not None:
        raise ConfigError("--against and --model ask two questions", hint="ask them one after the other")
    if model is None and (batch is not None or crop is not None):
        raise ConfigError("--batch and --crop are of --model", hint="torchstone doctor --model resnet50 --batch 256")
    if skip and (against is not None or model is not None):
        raise ConfigError("--skip is of the checks, which --against and --model do not run", hint="leave it out")
    if against is not None:
        found = _against.differences(_against.stored(against), environment.here(), against)
    elif model is not None:
        found = [_fits.fits(model, batch or 64, crop, Machine())]
    else:
        found = doctor(skip=skip or ())
    return _answers.findings(found, json, strict=strict)
