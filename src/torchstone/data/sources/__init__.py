"""What a user names as DATA: which reader takes it, and whether it is still what it was."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import os
import stat
import struct
from pathlib import Path

from torchstone.core import files
from torchstone.core.errors import DataError
from torchstone.core.registry import readers

GENERAL = ("manifest", "archive", "folder")
"""Readers that take any table, any archive, any directory: they are asked last, in this order."""


def find_reader(source: str) -> tuple[str, str]:
    """The root and the name of the reader that takes it. A path is made absolute: a run can go on from elsewhere.

    Raises a DataError where no reader takes it, or where it is an archive that cannot be opened.
    """
    path = Path(source).expanduser()
    absolute = str(path.resolve())
    special = [name for name in readers.names() if name not in GENERAL]
    for name in (*special, *GENERAL):
        reader = readers.get(name)
        if reader.accepts(absolute):
            return absolute, name
        if reader.accepts(source):
            return source, name
    raise _refusal(source, path)


def source_digest(source: str) -> str:
    """Changes when the source does: over the names, labels, sizes and times of its files; no image is opened."""
    root, name = find_reader(source)
    listing = readers.ready(name).listing(root)
    beside = sorted(str(entry) for entry in Path(root).iterdir()) if Path(root).is_dir() else []
    read_from = listing.files or [f"{root}/{path}" for path in listing.paths]
    digest = hashlib.sha256(files.digest([name, root, listing.classes]).encode())
    for path in (root, *beside, *read_from):
        with contextlib.suppress(OSError):  # the images of some sources are not files of their own
            status = os.stat(path)  # noqa: PTH116 - a Path for each of a million files takes seconds
            if stat.S_ISREG(status.st_mode):
                digest.update(struct.pack("<qq", status.st_size, status.st_mtime_ns))
    for column in (listing.paths, listing.labels, listing.parts, listing.groups, listing.times):
        digest.update(f"{len(column)}:".encode())
        for cell in column:
            digest.update(f"{cell!r},".encode())
    return digest.hexdigest()


def understood() -> str:
    """``understood: a folder of class folders, …``: what every reader says of itself."""
    special = [name for name in readers.names() if name not in GENERAL]
    return "understood: " + ", ".join(readers.get(name).understands for name in (*reversed(GENERAL), *special))


def _refusal(source: str, path: Path) -> DataError:
    """Why no reader takes it, and what was probably meant."""
    if path.is_file():
        return DataError(
            f"'{source}' is a file of no kind that is read",
            hint=f"unpack an archive, name the folder of an image; {understood()}",
        )
    if path.exists():
        return DataError(f"'{source}' is nothing that a reader takes", hint=understood())
    siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, [*siblings, "digits"], n=1, cutoff=0.6)
    if close:
        meant = close[0] if close[0] not in siblings else str(path.parent / close[0])
        return DataError(f"'{source}' does not exist", hint=f"did you mean '{meant}'?")
    return DataError(f"'{source}' does not exist", hint=understood())
