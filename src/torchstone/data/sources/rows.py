"""Tables that people write by hand or by script: CSV, TSV, JSON lines, Parquet; read as columns, with the place of each
row for messages."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torchstone.core.errors import DataError
from torchstone.data.sources import texts
from torchstone.data.sources.trees import MAX_NOTES, Tree, too_large

TEXT_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")
PARQUET = ".parquet"
DELIMITERS = ",;\t|"


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Columns of equal length. Cells of CSV are str, ``""`` where nothing stands; other formats have their types."""

    where: str
    columns: Mapping[str, Sequence[Any]]
    places: Sequence[int]
    unit: str
    """``line`` or ``row``: what ``places`` counts, from 1."""

    def at(self, row: int) -> str:
        """``line 12 of 'labels.csv'``."""
        return f"{self.unit} {self.places[row]:,} of '{self.where}'"

    def only(self, kept: Sequence[int]) -> Rows:
        """These rows alone."""
        columns = {name: [cells[row] for row in kept] for name, cells in self.columns.items()}
        return replace(self, columns=columns, places=[self.places[row] for row in kept])


def read(tree: Tree, path: str) -> Rows:
    """The table at ``path``; a DataError says where it is damaged."""
    suffix = Path(path).suffix.lower()
    if suffix == PARQUET:
        return _parquet(Path(tree.root) / path)
    try:
        text = texts.text(tree.read(path, MAX_NOTES), path)
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror}", hint="is it yours to read?") from None
    parse: Callable[[str, str], Rows] = _csv if suffix in (".csv", ".tsv") else _json_lines
    return parse(text, path)


def _csv(text: str, where: str) -> Rows:
    """Comma, semicolon, tab or bar, whichever the first line has most of."""
    first = text.partition("\n")[0]
    delimiter = "\t" if where.lower().endswith(".tsv") else max(DELIMITERS, key=first.count)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    places: list[int] = []
    cells: list[list[str]] = []
    try:
        names = [name.strip() for name in next(lines, [])]
        for row in lines:
            if not any(map(str.strip, row)):
                continue
            if len(row) > len(names):
                raise DataError(
                    f"line {lines.line_num:,} of '{where}' has {len(row)} cells under {len(names)} columns",
                    hint="put a cell that holds the delimiter into double quotes",
                )
            places.append(lines.line_num)
            cells.append(row + [""] * (len(names) - len(row)))
    except csv.Error as error:
        raise DataError(f"line {lines.line_num:,} of '{where}' is damaged: {error}", hint="mend it") from None
    _check_names(names, where)
    columns = {name: [row[index].strip() for row in cells] for index, name in enumerate(names)}
    return Rows(where=where, columns=columns, places=places, unit="line")


def _json_lines(text: str, where: str) -> Rows:
    places: list[int] = []
    rows: list[dict[str, Any]] = []
    for place, line in enumerate(text.split("\n"), start=1):  # not splitlines: JSON strings may hold other line ends
        if not line.strip():
            continue
        row = texts.json_value(line, f"line {place:,} of '{where}'", hint="one object a line")
        if not isinstance(row, dict):
            raise DataError(f"line {place:,} of '{where}' is no JSON object", hint='{"path": …, "label": …} a line')
        places.append(place)
        rows.append(row)
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [row.get(name) for row in rows] for name in names}
    return Rows(where=where, columns=columns, places=places, unit="line")


def _parquet(path: Path) -> Rows:
    from torchstone.core import tables

    if path.stat().st_size > MAX_NOTES:
        raise too_large(path.name, MAX_NOTES)
    table, _ = tables.read(path)
    columns = {name: table[name].to_list() for name in table.columns}
    return Rows(where=path.name, columns=columns, places=range(1, len(table) + 1), unit="row")


def _check_names(names: Sequence[str], where: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"'{where}' has two columns called '{name}'", hint="rename one")
