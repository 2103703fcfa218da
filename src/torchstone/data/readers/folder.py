"""A folder of class folders: ``class/image.jpg``, or ``train/class/image.jpg`` beside ``val/…``, ``test/…``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar

from torchstone.core.contracts import Listing
from torchstone.core.errors import DataError
from torchstone.core.values import Finding
from torchstone.data.findings import ITEMS_NAMED, count_of, name_a_few

SUFFIXES = frozenset(
    (
        ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff",
        ".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".jp2",
    )
)  # fmt: skip
PART_OF_FOLDER = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
LEFT_BY_ARCHIVERS = "__MACOSX"


class Folder:
    """Classes are the folders' names in natural order (``7`` before ``10``). A source's only held-out folder, be it
    called val or test, is its test part. Hidden files are passed over; folders within a class belong to it."""

    requires: ClassVar[tuple[str, ...]] = ()

    def accepts(self, root: str) -> bool:
        return Path(root).is_dir()

    def listing(self, root: str) -> Listing:
        walk = _Walk(Path(root))
        part_folders = _part_folders(walk)
        if part_folders:
            walk.ignored += [entry for entry in walk.visible(walk.root) if entry not in part_folders]
            for folder, part in part_folders.items():
                walk.read(folder, part)
        else:
            walk.read(walk.root, None)
        classes = _classes(walk, list(part_folders) or [walk.root])
        index = {name: label for label, name in enumerate(classes)}
        return Listing(
            classes=tuple(classes),
            paths=[path for path, _, _ in walk.images],
            labels=[index[name] for _, name, _ in walk.images],
            parts=[part for _, _, part in walk.images],
            findings=tuple(_ignored([walk.item(path) for path in walk.ignored])),
        )

    def image(self, root: str, path: str) -> bytes:
        return (Path(root) / path).read_bytes()


class _Walk:
    """A walk over the source that notes what it meets."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.images: list[tuple[str, str, str | None]] = []
        """Item, class and part."""
        self.classes_of: dict[Path, dict[str, int]] = {}
        """For each folder of classes: class → images."""
        self.ignored: list[Path] = []

    def item(self, path: Path) -> str:
        """The path from the root, with what is not valid UTF-8 as ``\\xff``."""
        return _text(path.relative_to(self.root).as_posix())

    def visible(self, folder: Path) -> list[Path]:
        """What lies in ``folder``, in natural order, without what is hidden or was left by an archiver."""
        try:
            entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
        except OSError as error:
            raise DataError(f"'{folder}' cannot be listed: {error.strerror}", hint="is it yours to read?") from None
        return sorted((entry for entry in entries if entry.name != LEFT_BY_ARCHIVERS), key=lambda e: natural(e.name))

    def read(self, folder: Path, part: str | None) -> None:
        """Note the images of each class folder in ``folder``."""
        counts = self.classes_of[folder] = {}
        for entry in self.visible(folder):
            if not entry.is_dir() or _is_image_name(entry):
                self.ignored.append(entry)
                continue
            if not _is_text(entry.name):
                raise DataError(f"the name of folder {entry.name!r} is not valid UTF-8", hint="rename it")
            images = list(self.below(entry, set()))
            self.images += [(self.item(image), entry.name, part) for image in images]
            counts[entry.name] = len(images)

    def below(self, folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
        """The image files in and below ``folder``; a folder that links lead to again is entered once."""
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            return
        seen.add((status.st_dev, status.st_ino))
        for entry in self.visible(folder):
            if not _is_text(entry.name):
                self.ignored.append(entry)
            elif entry.is_dir() and not _is_image_name(entry):
                yield from self.below(entry, seen)
            elif (entry.is_file() or entry.is_symlink()) and _is_image_name(entry):
                yield entry  # a link that leads nowhere is an image that cannot be read: it is reported as one
            else:
                self.ignored.append(entry)


def natural(name: str) -> list[tuple[int, int, str]]:
    """A sort key: digits by their value, letters whatever their case, and the name itself between equals."""
    pieces = re.split(r"(\d+)", name)
    return [(0, int(piece), "") if piece.isdecimal() else (1, 0, piece.casefold()) for piece in pieces] + [(2, 0, name)]


def _part_folders(walk: _Walk) -> dict[Path, str | None]:
    """Folder → part where the source is divided into parts: each of them is a folder of folders."""
    folders = {
        entry: PART_OF_FOLDER[entry.name.lower()]
        for entry in walk.visible(walk.root)
        if entry.name.lower() in PART_OF_FOLDER and entry.is_dir()
    }
    folders = {folder: part for folder, part in folders.items() if any(e.is_dir() for e in walk.visible(folder))}
    parts = set(folders.values())
    if len(parts) == 1:  # one part alone divides nothing
        return dict.fromkeys(folders)
    only_val = "test" not in parts
    return {folder: "test" if only_val and part == "val" else part for folder, part in folders.items()}


def _classes(walk: _Walk, folders: list[Path]) -> list[str]:
    """The classes, which must be the same in each of ``folders``, at least two, and none empty."""
    classes = sorted({name for counts in walk.classes_of.values() for name in counts}, key=natural)
    if not walk.images:
        raise DataError(
            f"'{walk.root}' holds no images in class folders"
            + (f"; ignored there: {name_a_few(path.name for path in walk.ignored)}" if walk.ignored else ""),
            hint="put the images of each class into a folder named after it: DATA/cat/1.jpg, DATA/dog/2.jpg",
        )
    for folder in folders:
        lacking = [name for name in classes if not walk.classes_of[folder].get(name)]
        if lacking:
            where = f"'{walk.item(folder)}' of '{walk.root}'" if folder != walk.root else f"'{walk.root}'"
            raise DataError(
                f"{where} has no images of class {name_a_few(map(repr, lacking))}",
                hint=f"add some, or take the class away everywhere; images are files that end in {_endings()}",
            )
    if len(classes) == 1:
        raise DataError(
            f"'{walk.root}' has only one class, '{classes[0]}'",
            hint="there is nothing to tell apart: add a folder for each further class",
        )
    return classes


def _ignored(items: list[str]) -> Iterable[Finding]:
    """One finding for everything that is no image."""
    if items:
        yield Finding(
            check="ignored",
            severity="info",
            message=f"{count_of(len(items), 'file')} ignored, being no image in a class folder: {name_a_few(items)}",
            hint=f"images are files that end in {_endings()}",
            items=tuple(items[:ITEMS_NAMED]),
            evidence={"files": len(items)},
        )


def _endings() -> str:
    return ", ".join(sorted(SUFFIXES))


def _is_image_name(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def _is_text(name: str) -> bool:
    """Whether the name is valid Unicode (Linux allows any bytes; a table of names does not)."""
    return _text(name) == name


def _text(name: str) -> str:
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")
