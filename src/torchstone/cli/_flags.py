"""Flags made from the fields of a value, so that command line, TOML and Python say the same."""

from __future__ import annotations

import inspect
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer

from torchstone.core.values import Value


def absent(value: Any) -> bool:
    """Whether a flag was not given. 0 is given."""
    return value is None or value is False or value == []


def parameter(kind: type[Value], name: str, flag: str) -> inspect.Parameter:
    """The option ``--flag`` for a field of ``kind``, with its description and default."""
    field = kind.model_fields[name]
    text = field.description or name
    if field.default not in (None, (), {}, False):
        text += f" [default: {field.default}]"
    typed = parsed(field.annotation)
    if typed is bool:
        return keyword(name, Annotated[bool, typer.Option(f"--{flag}", help=text)], False)
    return keyword(name, Annotated[typed | None, typer.Option(f"--{flag}", help=text)], None)


def parsed(annotation: Any) -> Any:
    """The type that the command line parses: the first real one of an optional, text for integer choices."""
    if get_origin(annotation) is Annotated:
        return parsed(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return parsed(next(kind for kind in get_args(annotation) if kind is not type(None)))
    if get_origin(annotation) in (tuple, dict):
        return list[str]
    if get_origin(annotation) is Literal and all(isinstance(value, int) for value in get_args(annotation)):
        return int
    return annotation


def keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
