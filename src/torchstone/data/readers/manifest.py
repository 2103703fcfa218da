"""A table of images: CSV, TSV, JSON lines or Parquet with a path and a label a row.

Further columns, all optional: the part that the image belongs to (train, val, test), a group that must not be separated
(a patient, a video), and a time in ISO 8601. Other columns of texts or numbers are kept, so that a verdict can be
sliced by them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, ClassVar

from torchstone.core.contracts import Listing
from torchstone.core.errors import DataError, nearest
from torchstone.core.values import Finding
from torchstone.data.findings import ITEMS_NAMED, count_of, name_a_few
from torchstone.data.sources import rows as tables_of_rows
from torchstone.data.sources import texts
from torchstone.data.sources.layout import PART_OF_NAME
from torchstone.data.sources.names import MAX_NAMES
from torchstone.data.sources.rows import PARQUET, TEXT_SUFFIXES, Rows
from torchstone.data.sources.trees import FolderTree, Tree, is_safe, natural, opened, tree
from torchstone.data.times import moment

SUFFIXES = (*TEXT_SUFFIXES, PARQUET)

NAMES = {
    "path": ("path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "img"),
    "label": ("class_name", "label_name", "label", "class", "category", "target"),
    "part": ("split", "part", "set", "subset", "partition"),
    "group": ("group", "group_id", "patient", "patient_id", "subject", "subject_id", "video", "video_id"),
    "time": ("time", "timestamp", "datetime", "date", "taken"),
    "decision": ("decision",),
}
"""What each column may be called, whatever its case; of several the first counts."""

IN_A_FOLDER = "manifest"
"""A folder or an archive that holds a file of this name is read by it, not by its folders."""

CLASSES = "classes.txt"
"""Beside the manifest: the classes' names in the order of their numbers, a line each."""

FURTHER = 32
"""Other columns that are kept at most, the first ones."""
LONGEST = 200
"""Letters of a cell beyond which its column is prose, and not kept."""

LOOKED_AT = 100
"""Files that are looked for before any is read: when none is there, the manifest stands in the wrong place."""


class Manifest:
    """Paths are relative to the manifest's folder (an absolute one may lead into it): nothing outside is read.
    Labels are names or numbers; numbers count the lines of a ``classes.txt`` beside, from 0, where there is one. Rows
    whose ``decision`` is ``drop`` are passed over."""

    requires: ClassVar[tuple[str, ...]] = ("polars",)
    understands: ClassVar[str] = "a CSV, TSV, JSONL or Parquet table with columns path and label"

    def accepts(self, root: str) -> bool:
        return _place(root) is not None

    def listing(self, root: str) -> Listing:
        place, file = _place(root) or _gone(root)
        rows = _not_dropped(tables_of_rows.read(place, file))
        called = {name: _called(rows, name) for name in NAMES}
        found = {name: None if column is None else rows.columns[column] for name, column in called.items()}
        for name in ("path", "label"):
            if found[name] is None:
                there = f", only {name_a_few(map(repr, rows.columns), most=8)}" if rows.columns else ": it is empty"
                hint = f"call it one of: {', '.join(NAMES[name])}"
                raise DataError(f"'{file}' has no column '{name}'{there}", hint=hint)
        paths = [_path(rows, row, cell, place) for row, cell in enumerate(found["path"] or ())]
        labels = [_label(rows, row, cell) for row, cell in enumerate(found["label"] or ())]
        if not paths:
            raise DataError(f"'{file}' has no rows", hint="a row for each image")
        kept, repeated = _unique(rows, paths, labels)
        _check_there(place, file, [paths[row] for row in kept[:LOOKED_AT]])
        classes, numbers, unused = _classes(place, [labels[row] for row in kept], file)
        groups, times = found["group"], found["time"]
        return Listing(
            classes=tuple(classes),
            paths=[paths[row] for row in kept],
            labels=numbers,
            parts=_parts(rows, found["part"], kept),
            groups=[_group(rows, row, groups[row]) for row in kept] if groups is not None else (),
            times=[_time(rows, row, times[row]) for row in kept] if times is not None else (),
            further=_further(rows, set(called.values()), kept),
            files=place.files([file, *(paths[row] for row in kept)]),
            findings=(*place.noticed, *repeated, *unused),
        )

    def image(self, root: str, path: str) -> bytes:
        is_file = Path(root).suffix.lower() in SUFFIXES
        return (FolderTree(str(Path(root).parent)) if is_file else tree(root)).read(path)


def _place(root: str) -> tuple[Tree, str] | None:
    """Where the paths start, and the manifest's name there."""
    path = Path(root)
    if path.is_file() and path.suffix.lower() in SUFFIXES:
        return FolderTree(str(path.parent)), path.name
    place = opened(root)
    if place is None:
        return None
    suffixes = SUFFIXES if isinstance(place, FolderTree) else TEXT_SUFFIXES
    found = next((IN_A_FOLDER + suffix for suffix in suffixes if place.holds(IN_A_FOLDER + suffix)), None)
    return (place, found) if found else None


def _gone(root: str) -> tuple[Tree, str]:
    raise DataError(f"'{root}' is no manifest any more", hint="put the file back")


def _called(rows: Rows, name: str) -> str | None:
    """The first column that goes by one of the names."""
    by_name = {column.strip().lower(): column for column in reversed(tuple(rows.columns))}
    return next((by_name[alias] for alias in NAMES[name] if alias in by_name), None)


def _further(rows: Rows, used: Collection[str | None], kept: Sequence[int]) -> dict[str, list[str | float | None]]:
    """The columns that are not ``used``, as numbers where each cell is one."""
    found: dict[str, list[str | float | None]] = {}
    for name, column in rows.columns.items():
        cells = [None if column[row] == "" else column[row] for row in kept]
        there = [cell for cell in cells if cell is not None]
        if name in used or not name.strip() or len(found) == FURTHER or not all(map(_plain, there)):
            continue
        if all(_number(cell) is not None for cell in there):
            found[name.strip()] = [None if cell is None else _number(cell) for cell in cells]
        else:
            found[name.strip()] = [None if cell is None else str(cell) for cell in cells]
    return found


def _plain(cell: Any) -> bool:
    return isinstance(cell, str | int | float) and len(str(cell)) <= LONGEST


def _number(cell: str | float) -> float | None:
    try:
        value = math.nan if isinstance(cell, bool) else float(cell)
    except (ValueError, OverflowError):
        return None
    return value if math.isfinite(value) else None


def _not_dropped(rows: Rows) -> Rows:
    """Without the rows that a column ``decision`` drops: a cleaned catalog that somebody has edited."""
    name = _called(rows, "decision")
    if name is None:
        return rows
    decisions = rows.columns[name]
    return rows.only([row for row, cell in enumerate(decisions) if str(cell).strip().lower() != "drop"])


def _path(rows: Rows, row: int, cell: Any, place: Tree) -> str:
    """Relative to the manifest's folder, with ``/``."""
    if not isinstance(cell, str) or not cell.strip():
        raise DataError(f"{rows.at(row)} has no path", hint="name the image's file, or delete the row")
    path = cell.strip().replace("\\", "/")
    if not is_safe(path):
        for root in (Path(place.root).absolute(), Path(place.root).resolve()):
            if Path(path).is_relative_to(root):
                path = Path(path).relative_to(root).as_posix()
    if not is_safe(path):
        raise DataError(
            f"{rows.at(row)} names '{cell}', which is not below '{place.root}'",
            hint="only files below the manifest's own folder are read: move the manifest up, or link to them",
        )
    return path.removeprefix("./")


def _label(rows: Rows, row: int, cell: Any) -> str:
    if isinstance(cell, float) and cell.is_integer():  # what integers become where one of the column is missing
        cell = int(cell)
    if isinstance(cell, bool) or not isinstance(cell, int | str):
        raise DataError(
            f"{rows.at(row)} has the label {cell!r}" if cell is not None else f"{rows.at(row)} has no label",
            hint="a label is a name or a whole number, one an image",
        )
    if not str(cell).strip():
        raise DataError(f"{rows.at(row)} has no label", hint="add it, or delete the row")
    return str(cell).strip()


def _parts(rows: Rows, cells: Sequence[Any] | None, kept: Sequence[int]) -> list[str | None]:
    """The source's own parts; all rows have one, or none has."""
    if cells is None or not any(cells[row] for row in kept):
        return [None] * len(kept)
    parts = []
    for row in kept:
        written = str(cells[row] or "").strip().lower()
        if not written:
            raise DataError(f"{rows.at(row)} names no part, and others do", hint="write train, val or test in each row")
        if written not in PART_OF_NAME:
            raise DataError(f"{rows.at(row)} names the part '{cells[row]}'", hint=nearest(written, PART_OF_NAME))
        parts.append(PART_OF_NAME[written])
    return parts


def _group(rows: Rows, row: int, cell: Any) -> str | None:
    if isinstance(cell, list | dict):
        raise DataError(f"{rows.at(row)} has the group {cell!r}", hint="a group is a name or a number")
    return str(cell) if cell is not None and cell != "" else None


def _time(rows: Rows, row: int, cell: Any) -> str | None:
    """ISO 8601, in UTC where a zone is given, so that the order of the texts is the order of the times."""
    if cell is None or cell == "":
        return None
    try:
        time = cell if isinstance(cell, date) else moment(str(cell))
        if not isinstance(time, datetime):
            time = datetime(time.year, time.month, time.day)
        return (time.astimezone(UTC) if time.tzinfo else time).isoformat()
    except (ValueError, OverflowError):
        hint = "write times in ISO 8601: 2026-11-30 or 2026-11-30T09:05:00"
        raise DataError(f"{rows.at(row)} has the time {cell!r}", hint=hint) from None


def _unique(rows: Rows, paths: Sequence[str], labels: Sequence[str]) -> tuple[list[int], list[Finding]]:
    """The rows to keep: the first of those that name one file. Two labels for one file are refused."""
    first_of: dict[str, int] = {}
    repeated: Counter[str] = Counter()
    for row, path in enumerate(paths):
        first = first_of.setdefault(path, row)
        if first == row:
            continue
        if labels[first] != labels[row]:
            raise DataError(
                f"{rows.at(row)} calls '{path}' {labels[row]!r}, {rows.unit} {rows.places[first]:,} {labels[first]!r}",
                hint="one label an image: correct or delete one of the rows",
            )
        repeated[path] += 1
    if not repeated:
        return list(first_of.values()), []
    finding = Finding(
        check="manifest",
        severity="warning",
        message=f"{count_of(sum(repeated.values()), 'row')} of '{rows.where}' repeating another one and left out: "
        f"{name_a_few(repeated)}",
        hint="delete them",
        items=tuple(list(repeated)[:ITEMS_NAMED]),
        evidence={"rows": sum(repeated.values())},
    )
    return list(first_of.values()), [finding]


def _check_there(place: Tree, file: str, paths: Sequence[str]) -> None:
    if not any(place.holds(path) for path in paths):
        raise DataError(
            f"none of the first {count_of(len(paths), 'file')} that '{file}' names is there; "
            f"the first would be '{place.root}/{paths[0]}'",
            hint="paths are relative to the folder that the manifest lies in",
        )


def _classes(place: Tree, labels: Sequence[str], file: str) -> tuple[list[str], list[int], list[Finding]]:
    """The classes, of each label its number, and a finding for names in ``classes.txt`` that no image has."""
    used = set(labels)
    name_of = {label: label for label in sorted(used, key=natural)}
    unused: list[str] = []
    if place.holds(CLASSES):
        names = texts.lines(place.read(CLASSES, MAX_NAMES), CLASSES)
        if len(set(names)) < len(names):
            raise DataError(f"'{CLASSES}' beside '{file}' holds a name twice", hint="a name a line, each once")
        by_number = {str(number): name for number, name in enumerate(names)}
        known = dict(zip(names, names, strict=True)) if used <= set(names) else by_number
        if not used <= set(known):
            unknown = sorted(used - set(names), key=natural)
            raise DataError(
                f"'{CLASSES}' beside '{file}' does not hold the label {name_a_few(map(repr, unknown))}",
                hint="a name a line; labels are these names, or their numbers from 0",
            )
        name_of = {label: name for label, name in known.items() if label in used}
        unused = [name for label, name in known.items() if label not in used]
    if len(name_of) < 2:
        only = next(iter(name_of.values()))
        raise DataError(f"'{file}' has only one class, '{only}'", hint="there is nothing to tell apart")
    number_of = {label: number for number, label in enumerate(name_of)}
    return list(name_of.values()), [number_of[label] for label in labels], _unused(unused)


def _unused(names: Sequence[str]) -> list[Finding]:
    if not names:
        return []
    return [
        Finding(
            check="names",
            severity="info",
            message=f"{count_of(len(names), 'class')} of '{CLASSES}' that no image has: {name_a_few(names)}",
            hint="a class without images cannot be learned: it is left out",
            items=tuple(names[:ITEMS_NAMED]),
            evidence={"classes": len(names)},
        )
    ]
