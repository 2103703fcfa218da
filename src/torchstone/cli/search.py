"""Search the values of a recipe's options, or with --compress chains that make a trained model smaller and faster.

The same command, typed anywhere, joins the same study. The ranges of a recipe stand in the [search] table of its TOML
file, those of chains in the file of --space; both have usual ones. A killed search goes on when the command is typed
again, or in the hands of its other workers.

With --compress, DATA is a run, or a torch artifact below runs/NAME/artifacts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from torchstone.cli._options import with_settings
from torchstone.config import JUDGING, WISHES, flag
from torchstone.core.errors import ConfigError

COMPRESS = Annotated[
    bool, typer.Option("--compress", help="Search chains that compress the model of the run that DATA names.")
]
OF_A_RUN = tuple(name for name in JUDGING if name not in ("threads", *WISHES))
"""What no search heeds."""


@with_settings(*OF_A_RUN, compress=COMPRESS)
def command(given: dict[str, Any], config: Path | None, json: bool, *, compress: bool) -> int:
    from torchstone.cli import _answers
    from torchstone.config import settings

    if compress:
        from torchstone.cli import _chains
        from torchstone.stages.search_chains import search_chains

        return _chains.found(search_chains(settings(given, config)), json)
    if odd := [name for name in ("space", *JUDGING) if name in given]:
        raise ConfigError(f"--{flag(odd[0])} is about chains", hint="torchstone search RUN --compress")
    from torchstone.stages.search import search

    return _answers.search(search(settings(given, config)), json)
