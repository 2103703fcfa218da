"""Pascal VOC: ``Annotations/7.xml`` with the boxes of ``JPEGImages/7.jpg``, and lists under ``ImageSets/Main``.

The form is in the VOC2012 development kit (http://host.robots.ox.ac.uk/pascal/VOC/voc2012). VOC itself counts pixels
from 1 and includes the last one, many tools that write its form count from 0: coordinates are kept as written.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import ClassVar

from torchstone.core.contracts import Box, Listing
from torchstone.core.errors import DataError
from torchstone.core.numbers import whole
from torchstone.data.sources import boxes, texts
from torchstone.data.sources.boxes import Drawn, Unusable
from torchstone.data.sources.layout import PART_OF_NAME
from torchstone.data.sources.trees import (
    Tree,
    as_text,
    files,
    folders,
    ignored,
    is_image_name,
    join,
    opened,
    tree,
    visible,
)

ANNOTATIONS = ("Annotations", "annotations")
PICTURES = ("JPEGImages", "images", "Images")
LISTS = "ImageSets/Main"
MAX_XML = 16 * 2**20
"""Bytes of the largest annotation: 50,000 boxes."""

DEPTH = 2
"""Folders below the root that are looked into: ``VOCdevkit/VOC2012``."""

BREADTH = 32
"""Folders of one level that are looked into: a VOC folder stands among few."""


class Voc:
    """An item for each box. The parts are what ``train.txt``, ``val.txt`` and ``test.txt`` list; where there are such
    lists, pictures in none of them are left out. Annotations in folders below ``Annotations`` are by several people:
    the folder's name is the annotator."""

    requires: ClassVar[tuple[str, ...]] = ()
    understands: ClassVar[str] = "a Pascal VOC folder"

    def accepts(self, root: str) -> bool:
        place = opened(root)
        return place is not None and next(_bases(place), None) is not None  # the root itself is ""

    def listing(self, root: str) -> Listing:
        place = tree(root)
        bases = list(_bases(place))
        if len(bases) > 1:
            named = ", ".join(f"{root}/{base}" for base in bases)
            raise DataError(f"'{root}' holds {len(bases)} VOC folders", hint=f"name one of them: {named}")
        base = bases[0]
        pictures = _pictures(place, base)
        part_of, lists = _parts(place, base)
        drawn: list[Drawn] = []
        unusable: list[Unusable] = []
        unlisted: list[str] = []
        notes = list(_notes(place, base))
        for note, annotator in notes:
            stem = PurePosixPath(note).stem
            if part_of and stem not in part_of:
                unlisted.append(as_text(note))
                continue
            try:
                drawn += _read(place, note, pictures, part_of.get(stem), annotator, unusable)
            except DataError as error:
                unusable.append(Unusable(as_text(note), error.message))
        missing = sorted(set(part_of) - {PurePosixPath(note).stem for note, _ in notes})
        unusable += [Unusable(stem, f"is listed in {LISTS} and has no annotation") for stem in missing]
        read_from = place.files(
            [*lists, *(note for note, _ in notes), *dict.fromkeys(row.box.picture for row in drawn)]
        )
        passed_over = ignored(unlisted, f"being in none of the lists of {LISTS}", None)
        return boxes.listing(root, drawn, unusable, read_from, [*place.noticed, *passed_over])

    def image(self, root: str, path: str) -> bytes:
        return boxes.image(tree(root), path)


def _bases(place: Tree) -> Iterator[str]:
    """The folders that hold annotations in XML beside pictures."""
    level = [""]
    for _ in range(DEPTH + 1):
        found = [folder for folder in level if _named(place, folder, PICTURES) and any(_notes(place, folder))]
        if found:
            yield from found
            return
        level = [inner for folder in level for inner in folders(place, folder)][:BREADTH]


def _named(place: Tree, folder: str, names: tuple[str, ...]) -> str | None:
    """The folder of one of these names in ``folder``."""
    there = {entry.name for entry in place.entries(folder) if entry.kind == "folder"}
    return next((join(folder, name) for name in names if name in there), None)


def _notes(place: Tree, base: str) -> Iterator[tuple[str, str | None]]:
    """The annotation files, and who made them."""
    folder = _named(place, base, ANNOTATIONS)
    if folder is None:
        return
    yield from ((path, None) for path in files(place, folder) if path.lower().endswith(".xml"))
    for inner in folders(place, folder):
        annotator = as_text(inner.rpartition("/")[2])
        yield from ((path, annotator) for path in files(place, inner) if path.lower().endswith(".xml"))


def _pictures(place: Tree, base: str) -> dict[str, str]:
    """Path of each picture, by its name and by its stem."""
    folder = _named(place, base, PICTURES)
    found = [entry.name for entry in visible(place, folder or base) if is_image_name(entry.name)]
    by_stem = {PurePosixPath(name).stem: join(folder or base, name) for name in found}
    return {**by_stem, **{name: join(folder or base, name) for name in found}}


def _parts(place: Tree, base: str) -> tuple[dict[str, str], list[str]]:
    """Stem → part, and the lists that say so. ``trainval.txt`` is the sum of two of them."""
    part_of: dict[str, str] = {}
    lists = []
    for part in dict.fromkeys(PART_OF_NAME.values()):
        path = join(base, f"{LISTS}/{part}.txt")
        if place.holds(path):
            lists.append(path)
            # The lists of single classes have a second column, those of all pictures none.
            part_of |= {line.split()[0]: part for line in texts.lines(place.read(path), path)}
    return part_of, lists


def _read(
    place: Tree,
    note: str,
    pictures: dict[str, str],
    part: str | None,
    annotator: str | None,
    unusable: list[Unusable],
) -> Iterator[Drawn]:
    """The boxes of one annotation. Objects without a box that can be read join ``unusable``."""
    parsed = _parsed(place.read(note, MAX_XML))
    stem = PurePosixPath(note).stem
    picture = pictures.get(stem) or pictures.get(PurePosixPath(parsed.findtext("filename", "")).name)
    if picture is None:
        raise DataError(f"no picture is called '{stem}'")
    width, height = (_whole(parsed.findtext(f"size/{name}")) for name in ("width", "height"))
    for index, drawn in enumerate(parsed.iter("object"), start=1):
        name = drawn.findtext("name", "").strip()
        try:
            corners = [boxes.number(drawn.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")]
        except (TypeError, ValueError):
            unusable.append(Unusable(f"{as_text(note)}, object {index}", "no box of four numbers"))
            continue
        if not name:
            unusable.append(Unusable(f"{as_text(note)}, object {index}", "no name"))
            continue
        yield Drawn(Box(picture, *corners, width=width, height=height, annotator=annotator), name, part)


def _parsed(content: bytes) -> ET.Element:
    """The XML document; one that declares entities or another encoding than UTF-8's family is refused."""
    if b"<!" in content.replace(b"<!--", b"").replace(b"<![CDATA[", b"") or b"\0" in content:
        raise DataError("XML with a DOCTYPE or in UTF-16 is not read")
    try:
        return ET.fromstring(content)
    except (ET.ParseError, ValueError, LookupError, RecursionError) as error:
        raise DataError(f"no XML: {error}") from None


def _whole(text: str | None) -> int:
    """Pixels; 0 where nothing is said."""
    return whole((text or "").strip()) or 0
