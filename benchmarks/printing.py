"""How measurements say what they found: a table on stdout, the same as JSON beside."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from conditions import conditions
from torchstone.core import files
from torchstone.core.values import Value


def printed(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout; the first column is the name, the others are numbers."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    out = Console(width=160, highlight=False)
    out.print(f"{title}\n")
    out.print(table)


def written(path: Path, **content: Any) -> None:
    """The same as JSON, with the machine's conditions."""
    files.write_json(path, json.loads(json.dumps({"conditions": conditions(), **content}, default=_plain)))
    print(f"\nas JSON: {path}")


def _plain(value: Any) -> Any:
    """What the standard encoder does not know."""
    if isinstance(value, Value):
        return value.model_dump(mode="json")
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    raise TypeError(f"{type(value).__name__} has no JSON")
