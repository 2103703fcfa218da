"""A saved catalog: ``catalog.parquet`` or ``cleaned.parquet``, as torchstone writes them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torchstone.core import registry, tables
from torchstone.core.contracts import Box, Listing, Reader
from torchstone.core.errors import ArtifactError, ConfigError, DataError
from torchstone.data.columns import FURTHER

if TYPE_CHECKING:
    import polars as pl

NEEDED = ("item", "path", "label")
BOX = tuple(f"box_{name}" for name in Box._fields)
DEPTH = 8
"""Catalogs of catalogs that are followed: one whose source is itself must not be followed for ever."""


class Saved:
    """Lists what the table has, without the rows that are decided to be dropped; the images come from the source that
    the catalog was made of, which must still be where it was. The classes and their order stay."""

    requires: ClassVar[tuple[str, ...]] = ("polars",)
    understands: ClassVar[str] = "a saved catalog (catalog.parquet or cleaned.parquet)"

    def accepts(self, root: str) -> bool:
        path = Path(root)
        if path.suffix.lower() != ".parquet" or not path.is_file() or registry.missing_packages(self.requires):
            return False
        try:
            return "reader" in tables.header(path)
        except ArtifactError:
            return False  # not a table, or one that somebody else made: other readers look at it

    def listing(self, root: str) -> Listing:
        table, header = tables.read(Path(root))
        _check(table, header, root)
        if "decision" in table.columns:
            table = table.filter(table["decision"] != "drop")
        if table["label"].null_count() or table["path"].null_count():
            raise _damaged(root, "there are rows without a path or a label")
        classes = tuple(map(str, header["classes"]))
        labels = table["label"].to_list()
        if not labels or min(labels) < 0 or max(labels) >= len(classes):
            raise _damaged(root, f"its labels are not those of its {len(classes)} classes")
        return Listing(
            classes=classes,
            paths=table["path"].to_list(),
            labels=labels,
            parts=_column(table, "part") or [None] * len(labels),
            groups=_column(table, "group"),
            times=_column(table, "time"),
            boxes=_boxes(table),
            further={name: table[name].to_list() for name in header.get(FURTHER, ()) if name in table.columns},
            files=_files(root, table["path"].to_list()),
        )

    def image(self, root: str, path: str) -> bytes:
        origin, reader = _origin(root, Path(root).stat().st_mtime_ns)
        return reader.image(origin, path)


def _check(table: pl.DataFrame, header: dict[str, Any], root: str) -> None:
    """Raise a DataError unless this is a catalog that names its source, its reader and its classes."""
    lacking = [name for name in NEEDED if name not in table.columns]
    if lacking:
        raise _damaged(root, f"it has no column {', '.join(lacking)}")
    if not isinstance(header.get("classes"), list) or len(header["classes"]) < 2:
        raise _damaged(root, "its header names no classes")
    _origin(root, Path(root).stat().st_mtime_ns)


@lru_cache(maxsize=16)
def _origin(root: str, changed: int) -> tuple[str, Reader]:  # noqa: ARG001
    """The source that a saved catalog was made of, and its reader. ``changed`` is the catalog's own time: what was
    known of an older file does not count."""
    at = root
    for _ in range(DEPTH):
        header = tables.header(Path(at))
        at, name = str(header.get("root")), str(header.get("reader"))
        if name != "saved":
            break
    else:
        raise _damaged(root, "it leads from catalog to catalog, and to no images")
    try:
        return at, registry.readers.ready(name)
    except ConfigError as error:
        raise _damaged(root, error.message) from None


def _files(root: str, paths: list[str]) -> list[str]:
    """The catalog, and the files that the images are read from."""
    origin, reader = _origin(root, Path(root).stat().st_mtime_ns)
    place = Path(origin)
    beside = place if place.is_dir() else place.parent
    read_from: Sequence[str] = ()
    if place.is_dir() and not (beside / paths[0]).is_file():  # many in one file, or cut out of pictures
        with contextlib.suppress(DataError, OSError):
            read_from = reader.listing(origin).files
    return [root, origin, *(read_from or (str(beside / path) for path in paths))]


def _column(table: pl.DataFrame, name: str) -> list[str | None]:
    """A column of text; empty where there is none or nothing in it."""
    if name not in table.columns or table[name].null_count() == len(table):
        return []
    return table[name].to_list()


def _boxes(table: pl.DataFrame) -> list[Box]:
    if any(name not in table.columns for name in BOX):
        return []
    return [Box(*row) for row in table.select(BOX).iter_rows()]


def _damaged(root: str, why: str) -> DataError:
    return DataError(
        f"'{root}' is no catalog that can be read: {why}", hint="make it again: torchstone audit DATA --fix"
    )
