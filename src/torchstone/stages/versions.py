"""Versions of a data set: split one and keep it, tell what changed between two."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from torchstone.core import tables
from torchstone.core.errors import ArtifactError
from torchstone.core.run import Run
from torchstone.core.values import Catalog, Split
from torchstone.data import catalog as catalogs
from torchstone.data import diff as diffs
from torchstone.data.diff import Difference, Version
from torchstone.data.sources import find_reader
from torchstone.stages.read import prepare, split_table

WRITTEN = {
    "catalog.json", "catalog.parquet", "similar.parquet", "findings.json", "split.json", "split.parquet", ".gitignore",
}  # fmt: skip
"""What ``split`` writes, and what a version control may leave beside it."""


def split(source: str, out_dir: Path, *, previous: Path | None = None, **options: Any) -> Split:
    """Read and split ``source`` into ``out_dir`` (catalog, split, findings); ``options`` are those of
    ``data.split.split``.

    What an earlier call wrote there is replaced once the new is whole, and its split keeps its images where they were,
    if it was made with the same options; so does ``previous``, a ``split.parquet`` or the directory of one. An
    ArtifactError refuses an ``out_dir`` that holds anything else.
    """
    previous = None if previous is None else split_table(previous)
    strange = out_dir.is_dir() and sorted({path.name for path in out_dir.iterdir()} - WRITTEN)
    if strange:
        raise ArtifactError(
            f"'{out_dir}' holds '{strange[0]}', which is no part of a split", hint="choose another --out"
        )
    return prepare(source, out_dir, previous=previous, **options)[1]


def diff(before: str, after: str) -> Difference:
    """What became of the images between two versions: sources, saved catalogs, or directories of one (a run, or what
    ``split`` or an audit wrote). What is saved is compared as it was when it was read."""
    saved = [_saved(name) for name in (before, after)]
    for name, path in zip((before, after), saved, strict=True):
        if path is None:
            find_reader(name)  # a name that is nothing is refused before the other is read
    return diffs.compare(_version(before, saved[0]), _version(after, saved[1]))


def _saved(name: str) -> Path | None:
    """The saved catalog that is meant, None where ``name`` is a source."""
    path = Path(name).expanduser()
    if path.is_dir():
        found = (place / "catalog.parquet" for place in _places(path) if (place / "catalog.json").exists())
        return next(found, None)
    return path if path.suffix == ".parquet" and path.is_file() and "reader" in tables.header(path) else None


def _version(name: str, saved: Path | None) -> Version:
    if saved is not None:
        table, header = tables.read(saved)
        return diffs.version(name, table, _classes(saved, header))
    with tempfile.TemporaryDirectory(prefix="torchstone-") as scratch:
        catalog = catalogs.read(name, Path(scratch))
        return diffs.version(name, tables.read(catalog.table)[0], catalog.classes)


def _classes(path: Path, header: dict[str, Any]) -> tuple[str, ...]:
    """The names of a saved catalog's classes: in its header, or in the ``catalog.json`` beside it."""
    return tuple(header["classes"]) if "classes" in header else Catalog.load(path.with_name("catalog.json")).classes


def _places(directory: Path) -> tuple[Path, Path]:
    """Where a catalog may lie: in the directory itself, or where a run keeps its own."""
    return directory, Run(directory).data
