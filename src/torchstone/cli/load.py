"""Ask a server at a rate and say what its users would meet: an open loop, with a proof of the p99.

Requests are due at random moments (a Poisson process) whether or not earlier ones were answered, and latency counts
from those moments. An answer that is not 200 counts as one that never came. With --max-p99-ms: exit code 0 where it is
proven that 99 % of the requests keep it, 1 where it is proven that they do not, 3 where more requests are needed, or
the client itself was too late. Ctrl-C gives the figures so far. Nothing is sent anywhere but to URL."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from torchstone.cli._options import JSON
from torchstone.core.errors import ConfigError

NEEDS = ("httptools",)


def command(
    url: Annotated[str, typer.Argument(metavar="URL", help="The server; without a path, /v1/classify is asked.")],
    *,
    rate: Annotated[float, typer.Option(help="Requests a second, at most 20,000.")],
    duration: Annotated[str, typer.Option("--for", help="How long, such as 60s or 5m; at most 6h.")] = "60s",
    images: Annotated[
        str,
        typer.Option(help="Folder of images, of any depth, or other data; at most 2,000 and 256 MB of them are sent."),
    ],
    max_p99_ms: Annotated[
        float | None, typer.Option(min=0, help="Limit that 99 % of the requests have to keep.")
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0.01, max=600, help="Seconds after which an answer is given up.")
    ] = 10.0,
    connections: Annotated[int, typer.Option(min=1, max=10_000, help="Connections at most.")] = 256,
    unique: Annotated[
        bool, typer.Option("--unique", help="Make each image another one to a cache, by bytes that no decoder reads.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the moments, and of which image is sent when.")] = 0,
    api_keys: Annotated[
        Path | None, typer.Option(help="File whose first key is sent along; or TORCHSTONE_API_KEYS.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File to write the figures to as well, as JSON.")] = None,
    json: JSON = False,
) -> int:
    from torchstone.cli import _loads
    from torchstone.config import seconds_of
    from torchstone.core import files
    from torchstone.core.errors import MissingPackageError
    from torchstone.core.registry import missing_packages

    try:
        seconds = seconds_of(duration)
    except ValueError as error:
        raise ConfigError(f"--for '{duration}' is refused: {error}") from None
    if missing := missing_packages(NEEDS):
        raise MissingPackageError("'load'", missing, extra="serve")
    from torchstone.serve.keys import own_key
    from torchstone.stages.load import Wanted, load

    found = load(
        Wanted(
            url=url, rate=rate, seconds=seconds, images=images, seed=seed, connections=connections, timeout=timeout,
            unique=unique, key=own_key(api_keys), max_p99_ms=max_p99_ms,
        )
    )  # fmt: skip
    code = _loads.code_of(found)
    if out is not None:
        files.write_json(out, {**found.as_json(), "exit_code": code})
    _loads.printed(found, code, json)
    return code
