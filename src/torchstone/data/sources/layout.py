"""What folders mean: ``class/image.jpg``, or ``train/class/image.jpg`` beside ``val/…`` and ``test/…``.

The same rules hold for a directory and for an archive of one (``data.sources.trees``).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator

from torchstone.core.contracts import Listing
from torchstone.core.errors import DataError
from torchstone.data.findings import name_a_few
from torchstone.data.sources.names import naming
from torchstone.data.sources.trees import (
    IMAGE_SUFFIXES,
    Tree,
    as_text,
    folders,
    ignored,
    is_image_name,
    is_text,
    join,
    natural,
    visible,
)

PART_OF_NAME = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip

ENDINGS = ", ".join(sorted(IMAGE_SUFFIXES))


def listing(tree: Tree) -> Listing:
    """The images in class folders.

    Classes are the folders' names in natural order (``7`` before ``10``), or what a names file beside them says
    (``data.sources.names``). Hidden files are passed over; folders within a class belong to it. Raises a DataError for
    fewer than two classes, and for a class that has no image in one of the parts.
    """
    walk = _Walk(tree)
    part_folders = _part_folders(tree)
    if part_folders:
        walk.ignored += [entry.name for entry in visible(tree, "") if entry.name not in part_folders]
        for folder, part in part_folders.items():
            walk.read(folder, part)
    else:
        walk.read("", None)
    named = naming(tree, _classes(walk, list(part_folders) or [""]))
    label_of = {folder: label for label, folder in enumerate(named.folders)}
    passed_over = [as_text(path) for path in walk.ignored if path != named.file]
    hint = f"images are files that end in {ENDINGS}"
    return Listing(
        classes=tuple(named.classes),
        paths=walk.paths,
        labels=[label_of[folder] for folder in walk.folders],
        parts=walk.parts,
        findings=(*tree.noticed, *named.findings, *ignored(passed_over, "being no image in a class folder", hint)),
    )


class _Walk:
    """A walk over the source that notes what it meets."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.paths: list[str] = []
        self.folders: list[str] = []
        """Of each path, the name of its class folder."""
        self.parts: list[str | None] = []
        self.classes_of: dict[str, dict[str, int]] = {}
        """For each folder of classes: class folder → images."""
        self.ignored: list[str] = []

    def read(self, folder: str, part: str | None) -> None:
        """Note the images of each class folder in ``folder``."""
        counts = self.classes_of[folder] = {}
        for entry in visible(self.tree, folder):
            path = join(folder, entry.name)
            if entry.kind != "folder" or is_image_name(entry.name):
                self.ignored.append(path)
                continue
            if not is_text(entry.name):
                raise DataError(f"the name of folder {entry.name!r} is not valid UTF-8", hint="rename it")
            images = list(self._below(path, set()))
            self.paths += images
            self.folders += [entry.name] * len(images)
            self.parts += [part] * len(images)
            counts[entry.name] = len(images)

    def _below(self, folder: str, seen: set[Hashable]) -> Iterator[str]:
        """The image files in and below ``folder``; a folder that links lead to again is entered once."""
        identity = self.tree.identity(folder)
        if identity in seen:
            return
        seen.add(identity)
        for entry in visible(self.tree, folder):
            path = join(folder, entry.name)
            if not is_text(entry.name):
                self.ignored.append(path)
            elif entry.kind == "folder" and not is_image_name(entry.name):
                yield from self._below(path, seen)
            elif entry.kind == "file" and is_image_name(entry.name):
                yield path  # a link that leads nowhere is an image that cannot be read: it is reported as one
            else:
                self.ignored.append(path)


def _part_folders(tree: Tree) -> dict[str, str]:
    """Folder → part where the source is divided into parts: each of them is a folder of folders."""
    named = [folder for folder in folders(tree, "") if folder.lower() in PART_OF_NAME]
    return {folder: PART_OF_NAME[folder.lower()] for folder in named if folders(tree, folder)}


def _classes(walk: _Walk, places: list[str]) -> list[str]:
    """The class folders, which must be the same in each of ``places``, at least two, and none empty."""
    root = walk.tree.root
    classes = sorted({name for counts in walk.classes_of.values() for name in counts}, key=natural)
    if not walk.paths:
        raise DataError(
            f"'{root}' holds no images in class folders"
            + (f"; ignored there: {name_a_few(as_text(path) for path in walk.ignored)}" if walk.ignored else ""),
            hint="put the images of each class into a folder named after it (DATA/cat/1.jpg, DATA/dog/2.jpg), or list "
            "them in a CSV file with the columns path and label",
        )
    for place in places:
        lacking = [name for name in classes if not walk.classes_of[place].get(name)]
        if lacking:
            where = f"'{as_text(place)}' of '{root}'" if place else f"'{root}'"
            raise DataError(
                f"{where} has no images of class {name_a_few(map(repr, lacking))}",
                hint=f"add some, or take the class away everywhere; images are files that end in {ENDINGS}",
            )
    if len(classes) == 1:
        inner = len(folders(walk.tree, join(places[0], classes[0]))) > 1
        instead = f"; if the folders in it are the classes, name '{root}/{join(places[0], classes[0])}'"
        raise DataError(
            f"'{root}' has only one class, '{classes[0]}'",
            hint="there is nothing to tell apart: add a folder for each further class" + (instead if inner else ""),
        )
    return classes
