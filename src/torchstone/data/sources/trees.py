"""Places that hold files by name: a directory, or an archive that is read in place. Readers see no difference."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Hashable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from torchstone.core.errors import DataError
from torchstone.core.values import Finding
from torchstone.data.findings import ITEMS_NAMED, count_of, name_a_few

MAX_FILE = 256 * 2**20
"""Bytes of the largest single image that is read: as much as the largest picture that is decoded has pixels' bytes."""

MAX_NOTES = 2 * 2**30
"""Bytes of the largest annotation file or manifest: COCO's own has half a gigabyte."""

LEFT_BY_ARCHIVERS = "__MACOSX"

IMAGE_SUFFIXES = frozenset(
    (
        ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff",
        ".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".jp2",
    )
)  # fmt: skip


Kind = Literal["folder", "file", "other"]


class Entry(NamedTuple):
    """What lies in a folder of a tree."""

    name: str
    kind: Kind
    """``other``: a pipe, a device, in archives a link. Links on the disk count as what they lead to."""


class Tree(Protocol):
    """Folders and files below a root. Paths are relative, with ``/``; the root is the empty path."""

    root: str
    """What the user named."""
    noticed: tuple[Finding, ...]
    """What opening it showed."""

    def entries(self, folder: str) -> Iterable[Entry]:
        """What lies in a folder, hidden or not, in no order; a DataError where it cannot be listed."""
        ...

    def identity(self, folder: str) -> Hashable:
        """Equal for two paths that lead to the same folder."""
        ...

    def holds(self, path: str) -> bool:
        """Whether there is a file of that name."""
        ...

    def read(self, path: str, limit: int = MAX_FILE) -> bytes:
        """A file's content; an OSError where there is none, a DataError for more than ``limit`` bytes."""
        ...

    def files(self, paths: Iterable[str]) -> Sequence[str]:
        """The files on the disk that these are read from."""
        ...


class FolderTree:
    """A directory."""

    noticed: tuple[Finding, ...] = ()

    def __init__(self, root: str) -> None:
        self.root = root

    def entries(self, folder: str) -> Iterable[Entry]:
        place = self._place(folder)
        try:
            with os.scandir(place) as found:
                return [Entry(entry.name, _kind(entry)) for entry in found]
        except OSError as error:
            raise DataError(f"'{place}' cannot be listed: {error.strerror}", hint="is it yours to read?") from None

    def identity(self, folder: str) -> Hashable:
        status = self._place(folder).stat()
        return status.st_dev, status.st_ino

    def holds(self, path: str) -> bool:
        try:
            return self._place(path).is_file()
        except OSError:  # a name that is too long for any file
            return False

    def read(self, path: str, limit: int = MAX_FILE) -> bytes:
        with open(self._below(path), "rb") as file:  # noqa: PTH123 - a Path takes as long as the reading
            # Asked for what it has: room for the whole limit, asked for and given back, takes longer than the reading.
            size = min(os.fstat(file.fileno()).st_size, limit)
            content = file.read(size + 1)
            if len(content) > size:  # it grew, or its size is not on record
                content += file.read(limit + 1 - len(content))
        if len(content) > limit:
            raise too_large(path, limit)
        return content

    def files(self, paths: Iterable[str]) -> Sequence[str]:
        return [self._below(path) for path in paths]

    def _place(self, path: str) -> Path:
        return Path(self._below(path))

    def _below(self, path: str) -> str:
        """As text: a Path for each of a million files takes a minute."""
        plain = path.replace(os.sep, "/")
        if plain.startswith("/") or ".." in plain.split("/"):
            raise DataError(f"'{path}' leads out of '{self.root}'", hint="only what lies below it is read")
        return f"{self.root}/{path}" if path else self.root


def opened(root: str) -> Tree | None:
    """The directory or archive at ``root``, None where there is neither; a DataError for an archive that is damaged.

    An archive is listed once a process, and again when its file has changed.
    """
    from torchstone.data.sources import archives

    if Path(root).is_dir():
        return FolderTree(root)
    if not archives.is_archive(Path(root)):
        return None
    status = Path(root).stat()
    with _one_opens:
        return _archive(root, status.st_size, status.st_mtime_ns)


def tree(root: str) -> Tree:
    """``opened``, for a root that a reader has accepted before: a DataError where it is gone."""
    found = opened(root)
    if found is None:
        raise DataError(f"'{root}' is neither a folder nor an archive any more", hint="put it back")
    return found


_one_opens = threading.Lock()
"""A cache alone would let every thread that finds it empty unpack the archive."""


@lru_cache(maxsize=4)
def _archive(root: str, *stamp: int) -> Tree:  # noqa: ARG001 - the stamp is part of the key
    from torchstone.data.sources import archives

    return archives.ArchiveTree(root)


def visible(place: Tree, folder: str, kind: Kind | None = None) -> list[Entry]:
    """What lies in ``folder`` (of one kind), in natural order, without what is hidden or was left by an archiver."""
    entries = [
        entry
        for entry in place.entries(folder)
        if kind in (None, entry.kind) and not entry.name.startswith(".") and entry.name != LEFT_BY_ARCHIVERS
    ]
    return sorted(entries, key=lambda entry: natural(entry.name))


def folders(place: Tree, folder: str) -> list[str]:
    """Paths of the visible folders in ``folder``."""
    return [join(folder, entry.name) for entry in visible(place, folder, "folder")]


def files(place: Tree, folder: str) -> list[str]:
    """Paths of the visible files in ``folder``."""
    return [join(folder, entry.name) for entry in visible(place, folder, "file")]


def join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def is_image_name(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122 - names of archives are no paths


def is_text(name: str) -> bool:
    """Whether the name is valid Unicode (Linux allows any bytes; a table of names does not)."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def as_text(name: str) -> str:
    """The name with what is not valid UTF-8 as ``\\xff``."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def is_safe(path: str) -> bool:
    """Whether a path from outside stays below the folder that it is joined to, on every system."""
    plain = path.replace("\\", "/")
    return not (re.match("/|[A-Za-z]:/", plain) or ".." in plain.split("/") or "\0" in plain)


def natural(name: str) -> list[tuple[int, int, str]]:
    """A sort key: digits by their value, letters whatever their case, and the name itself between equals."""
    key = []
    for piece in re.split(r"(\d+)", name):
        digits = piece.lstrip("0")  # compared by length first: Python refuses to convert very long ones
        key.append((0, len(digits), digits) if piece.isdecimal() else (1, 0, piece.casefold()))
    return [*key, (2, 0, name)]


def ignored(items: Sequence[str], reason: str, hint: str | None) -> list[Finding]:
    """One finding for what a reader passes over: ``12 files ignored, REASON: a, b, c and 9 more``."""
    if not items:
        return []
    return [
        Finding(
            check="ignored",
            severity="info",
            message=f"{count_of(len(items), 'file')} ignored, {reason}: {name_a_few(items)}",
            hint=hint,
            items=tuple(items[:ITEMS_NAMED]),
            evidence={"files": len(items)},
        )
    ]


def too_large(path: str, limit: int) -> DataError:
    return DataError(
        f"'{path}' has more than the {limit / 1e6:,.0f} MB that are read of such a file",
        hint="is it what it should be?",
    )


def _kind(entry: os.DirEntry[str]) -> Kind:
    """A link that leads nowhere counts as a file, which then cannot be read."""
    try:
        if entry.is_dir():
            return "folder"
        return "file" if entry.is_file() or entry.is_symlink() else "other"
    except OSError:  # a link that leads to itself
        return "file"
