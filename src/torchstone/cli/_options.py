"""Flags made from the fields of ``Settings``, so that command line, TOML and Python say the same."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_origin

import typer

from torchstone.cli._flags import absent, keyword, parameter
from torchstone.config import Settings, flag
from torchstone.core.errors import ConfigError

JSON = Annotated[bool, typer.Option("--json", help="Print the answer as JSON on stdout and nothing else.")]
RUNS = Annotated[Path, typer.Option("--runs", help="Folder of all runs.")]


def with_settings(*without: str, **more: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate a verb ``f(given, config, json)``: it gets every field of ``Settings`` but ``without`` as a flag, and
    is called with those that were given. ``more`` are the types of switches of its own, off unless given, which the
    verb takes by name."""

    def decorate(verb: Callable[..., Any]) -> Callable[..., Any]:
        def command(**arguments: Any) -> Any:
            config, json = arguments.pop("config"), arguments.pop("json")
            own = {name: arguments.pop(name) for name in more}
            given = {name: _pairs(name, value) for name, value in arguments.items() if not absent(value)}
            return verb(given, config, json, **own)

        parameters = [_parameter(name) for name in Settings.model_fields if name not in ("schema_version", *without)]
        parameters += [keyword(name, kind, False) for name, kind in more.items()]
        parameters += [
            keyword("config", Annotated[Path | None, typer.Option(help="TOML file of the same names.")], None),
            keyword("json", JSON, False),
        ]
        command.__name__ = verb.__name__
        command.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
        command.__doc__ = verb.__doc__
        return command

    return decorate


def _pairs(name: str, value: Any) -> Any:
    """``["lr=3e-4", …]`` as a dict where the setting is one; everything else as it is."""
    if get_origin(Settings.model_fields[name].annotation) is not dict:
        return value
    found: dict[str, str] = {}
    for text in value:
        key, equals, content = text.partition("=")
        if not equals:
            raise ConfigError(f"--{flag(name)} '{text}' has no value", hint=f"--{flag(name)} {key.strip()}=VALUE")
        found[key.strip()] = content.strip()
    return found


def _parameter(name: str) -> inspect.Parameter:
    if name == "data":
        text = Settings.model_fields[name].description
        return keyword(name, Annotated[str | None, typer.Argument(metavar="DATA", help=text)], None)
    return parameter(Settings, name, flag(name))
