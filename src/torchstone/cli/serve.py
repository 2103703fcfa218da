"""Serve bundles over HTTP: batching, limits, several workers, hot reload.

BUNDLE is a directory that 'torchstone run' left (runs/NAME/bundle), or NAME=DIRECTORY; several are served side by side.
SIGHUP opens them again; SIGTERM answers what was accepted, then ends."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated, Any

import typer

from torchstone.cli._flags import absent, keyword, parameter
from torchstone.serve.settings import ServeSettings, flag, settings

NEEDS = ("onnxruntime", "starlette", "uvicorn", "python_multipart", "sqlalchemy", "prometheus_client")


def command(**arguments: Any) -> int:
    from torchstone.core.console import say
    from torchstone.core.errors import MissingPackageError
    from torchstone.core.registry import missing_packages
    from torchstone.serve.workers import Supervisor

    config = arguments.pop("config")
    chosen = settings({name: value for name, value in arguments.items() if not absent(value)}, config)
    if missing := missing_packages(NEEDS):
        raise MissingPackageError("'serve'", missing, extra="serve")
    Supervisor(chosen, serving=lambda url: say(f"serving on {url}")).run()
    return 0


def _parameters() -> list[inspect.Parameter]:
    bundles = Annotated[
        list[str] | None, typer.Argument(metavar="BUNDLE...", help="Bundles: DIRECTORY, NAME=DIRECTORY.")
    ]
    file = Annotated[Path | None, typer.Option(help="TOML file of the same names.")]
    names = [name for name in ServeSettings.model_fields if name not in ("schema_version", "bundles")]
    options = [parameter(ServeSettings, name, flag(name)) for name in names]
    return [keyword("bundles", bundles, None), *options, keyword("config", file, None)]


command.__signature__ = inspect.Signature(_parameters())  # pyright: ignore[reportFunctionMemberAccess]
