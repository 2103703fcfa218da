"""A table from outside in whichever format it came, read within limits: cells, numbers, lists of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from torchstone.core import tables
from torchstone.core.errors import DataError
from torchstone.core.numbers import is_number
from torchstone.data.findings import name_a_few
from torchstone.data.sources import rows as tables_of_rows
from torchstone.data.sources.rows import PARQUET, TEXT_SUFFIXES, Rows
from torchstone.data.sources.trees import FolderTree

SUFFIXES = (*TEXT_SUFFIXES, PARQUET)
USUAL_FILES = ("predictions-test", "predictions", "answers")
"""What is read of a directory, without the suffix: the first that is there, or else its only table."""

MAX_TEXT = 128 * 2**20
"""Bytes of the largest table of text: each of its cells takes about ten times its room in memory."""
MAX_PARQUET = 2**30
MAX_ITEMS = 2_000_000
MAX_CELLS = 2**28
"""Scores that are read at most: a gigabyte."""


class Table(Protocol):
    """A table, whichever format it came in."""

    names: Sequence[str]

    def cells(self, name: str) -> Sequence[Any]: ...

    def numbers(self, name: str) -> NDArray[Any]:
        """float[n]; a DataError names the first cell that is no number. Empty cells are NaN."""
        ...

    def lists(self, name: str) -> NDArray[Any] | None:
        """float[n, k] of a column of lists, which all have the same length; None where it holds something else."""
        ...

    def at(self, row: int) -> str:
        """``line 12 of 'answers.csv'``."""
        ...


def find(place: Path) -> Path:
    """The table that ``place`` names: itself, or the one in that directory."""
    if place.is_file():
        if place.suffix.lower() not in SUFFIXES:
            raise DataError(
                f"'{place}' is not evidence: its name ends in '{place.suffix}'", hint=f"known: {', '.join(SUFFIXES)}"
            )
        return place
    if not place.is_dir():
        raise DataError(
            f"'{place}' is neither a file nor a directory",
            hint="name a table of answers: a row an image with its item, its label and a prediction",
        )
    there = sorted(path for path in place.iterdir() if path.is_file() and path.suffix.lower() in SUFFIXES)
    for usual in USUAL_FILES:
        if len(found := [path for path in there if path.stem.lower() == usual]) == 1:
            return found[0]
    if len(there) == 1:
        return there[0]
    what = f"several tables: {name_a_few(path.name for path in there)}" if there else f"no {', '.join(SUFFIXES)} file"
    raise DataError(f"'{place}' holds {what}", hint="name the file of the answers itself")


def opened(path: Path) -> tuple[Table, Mapping[str, Any]]:
    """The table, after its size was found to be bearable, and torchstone's header."""
    limit = MAX_PARQUET if path.suffix.lower() == PARQUET else MAX_TEXT
    if path.stat().st_size > limit:
        raise DataError(
            f"'{path}' has {path.stat().st_size:,} bytes, and at most {limit:,} are read",
            hint="predictions take less room than scores"
            + ("" if limit == MAX_PARQUET else ", Parquet less than text"),
        )
    if path.suffix.lower() != PARQUET:
        rows = tables_of_rows.read(FolderTree(str(path.parent)), path.name)
        return Written(replace(rows, where=str(path))), {}
    count, first = tables.peek(path)
    width = sum(_width(first[name]) for name in first.columns)
    refuse_too_many(path, count, max(1, width))
    table, header = tables.read(path)
    return Columns(path, table), header


def _width(column: Any) -> int:
    """Numbers in the first cell of a Parquet column."""
    first = column.to_list()[:1]
    return len(first[0]) if first and isinstance(first[0], list | tuple) else 1


def refuse_too_many(path: Path, items: int, width: int) -> None:
    if items > MAX_ITEMS or items * width > MAX_CELLS:
        raise DataError(
            f"'{path}' has {items:,} rows of {width:,} values; at most {MAX_ITEMS:,} rows and {MAX_CELLS:,} values are "
            "read",
            hint="a column 'prediction' in place of the scores says as much about accuracy",
        )


class Written:
    """A table of text or of JSON."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.names: Sequence[str] = list(rows.columns)

    def cells(self, name: str) -> Sequence[Any]:
        return self.rows.columns[name]

    def numbers(self, name: str) -> NDArray[Any]:
        cells = self.rows.columns[name]
        try:
            return np.array(["nan" if cell in ("", None) else cell for cell in cells], np.float64)
        except (TypeError, ValueError):
            row = next(row for row, cell in enumerate(cells) if not _is_number(cell))
            raise DataError(
                f"{self.at(row)}: '{name}' is {cells[row]!r}, which is no number", hint="a score for every class"
            ) from None

    def lists(self, name: str) -> NDArray[Any] | None:
        cells = self.rows.columns[name]
        if not all(isinstance(cell, list) for cell in cells):
            return None
        refuse_too_many(Path(self.rows.where), len(cells), max(map(len, cells)))
        _same_length(self, [len(cell) for cell in cells])
        for row, cell in enumerate(cells):
            if not all(map(_is_number, cell)):
                raise DataError(f"{self.at(row)}: '{name}' holds something that is no number", hint="a score a class")
        return np.array([["nan" if one in ("", None) else one for one in cell] for cell in cells], np.float64)

    def at(self, row: int) -> str:
        return self.rows.at(row)


class Columns:
    """A Parquet file."""

    def __init__(self, path: Path, table: Any) -> None:
        self.path, self.table = path, table
        self.names: Sequence[str] = table.columns

    def cells(self, name: str) -> Sequence[Any]:
        return self.table[name].to_list()

    def numbers(self, name: str) -> NDArray[Any]:
        column = self.table[name]
        if not column.dtype.is_numeric():
            raise DataError(f"column '{name}' of '{self.path}' holds {column.dtype}, no numbers", hint="write numbers")
        values = column.to_numpy()
        return values if values.dtype.kind in "fiu" else values.astype(np.float64)

    def lists(self, name: str) -> NDArray[Any] | None:
        column = self.table[name]
        if not column.dtype.is_nested():
            return None
        if column.null_count():
            row = column.is_null().to_list().index(True)
            raise DataError(f"{self.at(row)}: '{name}' is empty", hint="a score for every class of every item")
        kind = str(column.dtype)
        if kind.startswith("Array"):
            return self._two_dimensional(name, column)
        if not kind.startswith("List"):
            return None
        lengths = column.list.len().to_list()
        _same_length(self, lengths)
        return self._two_dimensional(name, column.list.to_array(lengths[0])) if lengths and lengths[0] else None

    def _two_dimensional(self, name: str, column: Any) -> NDArray[Any]:
        values = np.asarray(column.to_numpy())
        if values.ndim != 2 or values.dtype.kind not in "fiu":
            raise DataError(f"column '{name}' of '{self.path}' holds {column.dtype}", hint="lists of numbers are read")
        return values

    def at(self, row: int) -> str:
        return f"row {row + 1:,} of '{self.path}'"


def _is_number(cell: Any) -> bool:
    return is_number(cell) or cell in ("", None)


def _same_length(table: Table, lengths: Sequence[int]) -> None:
    for row, length in enumerate(lengths):
        if length != lengths[0]:
            raise DataError(
                f"{table.at(row)} has {length} scores where the first has {lengths[0]}",
                hint="a score for every class of every item",
            )
