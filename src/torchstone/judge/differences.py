"""What is stored beside what was recomputed, down to the last field."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchstone.core import files

SAME = 1e-9
"""Relative difference below which two numbers are one: another CPU may round a logarithm differently."""


@dataclass(frozen=True)
class Mismatch:
    """Something printed that its evidence does not give. ``row`` is a candidate's name, 'verdict' or 'bundle'."""

    row: str
    field: str
    stored: str
    recomputed: str
    cannot: str | None = None
    """Why it cannot be recomputed here; None: it was, and differs."""

    def __str__(self) -> str:
        if self.cannot is not None:
            return f"{self.row}: {self.field} cannot be recomputed: {self.cannot}"
        return f"{self.row}: {self.field} is {self.stored}, recomputed {self.recomputed}"


def differences(place: str, old: Any, new: Any) -> Iterator[tuple[str, str, str]]:
    """(field, stored, recomputed) of every leaf that differs."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from differences(f"{place}.{key}" if place else key, old.get(key), new.get(key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, (one, other) in enumerate(zip(old, new, strict=True)):
            name = _called(one, number)
            yield from differences(f"{place}[{name}]", one, other)
    elif isinstance(old, float) and isinstance(new, float | int):
        if not math.isclose(old, new, rel_tol=SAME, abs_tol=SAME):
            yield place, f"{old!r}", f"{new!r}"
    elif old != new:
        yield place, repr(old), repr(new)


def _called(one: Any, number: int) -> Any:
    """What stands at this place of a list: a criterion, a metric, a slice by its value, or else the number."""
    names = ("criterion", "name", "value") if isinstance(one, dict) else ()
    return next((one[name] for name in names if isinstance(one.get(name), str)), number)


def hashed(path: Path) -> str:
    """sha256 of a file, or 'missing'."""
    try:
        return files.sha256(path)
    except OSError:
        return "missing"


def short(digest: str) -> str:
    """As much of a digest as a person compares."""
    return digest[:12]
