"""Say what this machine can do, what is wrong with it, and how to mend it.

With --against, what differs from the machine that a result was made on, and which of it can change its numbers. With
--model, whether a training of it fits into the memory."""

from __future__ import annotations

from typing import Annotated

import typer

from torchstone.cli._options import JSON


def command(
    *,
    against: Annotated[
        str | None, typer.Option(metavar="RUN", help="A run, or a directory of evidence, to compare this machine with.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Would a training of this network fit into the memory? With --batch and --crop.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images at once, of --model.")] = 64,
    crop: Annotated[int | None, typer.Option(min=8, help="Pixels a side, of --model; by default its own.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 at a warning, too: for CI.")] = False,
    json: JSON = False,
) -> int:
    from torchstone.cli import _answers
    from torchstone.core import environment
    from torchstone.doctor import Machine, _against, _fits, doctor

    if against is not None:
        found = _against.differences(_against.stored(against), environment.here(), against)
    elif model is not None:
        found = [_fits.fits(model, batch, crop, Machine())]
    else:
        found = doctor()
    return _answers.findings(found, json, strict=strict)
