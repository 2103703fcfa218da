"""COCO's object annotations: JSON with ``images``, ``annotations`` and ``categories``.

The form is on https://cocodataset.org/#format-data. Found are ``annotations/instances_train2017.json`` and its like,
with the pictures in ``train2017`` or ``images``, and Roboflow's ``train/_annotations.coco.json`` beside the pictures.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, ClassVar

from torchstone.core.contracts import Box, Listing
from torchstone.core.errors import DataError
from torchstone.core.values import Finding
from torchstone.data.findings import count_of
from torchstone.data.sources import boxes, texts
from torchstone.data.sources.boxes import Drawn, Unusable
from torchstone.data.sources.layout import PART_OF_NAME
from torchstone.data.sources.trees import MAX_NOTES, Tree, files, folders, is_safe, join, opened, tree

FOLDERS = ("annotations", "Annotations", "")
BESIDE_PICTURES = "_annotations.coco.json"
LOOKED_AT = 20
"""Pictures that are looked for to find the folder they are in."""


class Coco:
    """An item for each box; the part is what the JSON file is called. Crowds (``iscrowd``) are boxes round many things
    and left out. An annotation may name its ``annotator``, which is no part of COCO's own format."""

    requires: ClassVar[tuple[str, ...]] = ()
    understands: ClassVar[str] = "a folder with COCO's annotations"

    def accepts(self, root: str) -> bool:
        place = opened(root)
        return place is not None and bool(_notes(place))

    def listing(self, root: str) -> Listing:
        place = tree(root)
        drawn: list[Drawn] = []
        unusable: list[Unusable] = []
        crowds = 0
        notes = _notes(place)
        for note in notes:
            content = _parsed(place, note)
            images = _images(content["images"], note, unusable)
            pictures = _pictures(place, note, images)
            names = _names(content["categories"], note)
            part = _part(note)
            for index, row in enumerate(content["annotations"]):
                if isinstance(row, dict) and row.get("iscrowd") == 1:
                    crowds += 1
                    continue
                try:
                    drawn.append(_drawn(row, images, pictures, names, part))
                except (KeyError, TypeError, ValueError) as error:
                    shown = row.get("id", index) if isinstance(row, dict) else index
                    unusable.append(Unusable(f"{note}, annotation {shown}", _reason(error)))
        read_from = place.files([*notes, *dict.fromkeys(row.box.picture for row in drawn)])
        return boxes.listing(root, drawn, unusable, read_from, [*place.noticed, *_crowds(crowds)])

    def image(self, root: str, path: str) -> bytes:
        return boxes.image(tree(root), path)


def _notes(place: Tree) -> list[str]:
    """The annotation files: ``instances_…`` alone where there are such, for captions and keypoints lie beside them."""
    beside = [join(folder, BESIDE_PICTURES) for folder in ("", *islice(folders(place, ""), 32))]
    found = [path for path in beside if place.holds(path)]
    if found:
        return found
    there = {"", *folders(place, "")}
    for folder in FOLDERS:
        if folder in there:
            found = [path for path in files(place, folder) if path.lower().endswith(".json")]
            instances = [path for path in found if path.rpartition("/")[2].startswith("instances")]
            found = instances or [path for path in found if _speaks_of_boxes(place, path)]
            if found:
                return found
    return []


def _speaks_of_boxes(place: Tree, path: str) -> bool:
    """Whether a JSON file is COCO's, by the words in it: parsing half a gigabyte takes longer."""
    content = place.read(path, MAX_NOTES)
    return all(f'"{word}"'.encode() in content for word in ("images", "annotations", "categories", "bbox"))


def _parsed(place: Tree, note: str) -> dict[str, list[Any]]:
    hint = "is it COCO's instances file?"
    written = texts.text(place.read(note, MAX_NOTES), note)
    content = texts.json_value(written, f"'{note}' of '{place.root}'", hint)
    for name in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(name), list):
            raise DataError(f"'{note}' of '{place.root}' holds no list '{name}'", hint=hint)
    return content


def _images(rows: Sequence[Any], note: str, unusable: list[Unusable]) -> dict[Any, tuple[str, int, int]]:
    """Id → file name, width and height (0 where they are not given)."""
    images = {}
    for index, row in enumerate(rows):
        try:
            name, key = row["file_name"], row["id"]
            if not isinstance(name, str) or not is_safe(name):
                raise ValueError(f"the file name {name!r} leads out of the folder")
            images[key] = (name.replace("\\", "/").removeprefix("./"), _whole(row, "width"), _whole(row, "height"))
        except (KeyError, TypeError, ValueError) as error:
            unusable.append(Unusable(f"{note}, image {index}", _reason(error)))
    return images


def _pictures(place: Tree, note: str, images: Mapping[Any, tuple[str, int, int]]) -> str:
    """The folder that the file names start in: the first in which some of them are."""
    folder, _, file = note.rpartition("/")
    above = folder.rpartition("/")[0]
    called = file.rpartition(".")[0].partition("_")[2]  # instances_train2017 → train2017
    inner = [called, f"images/{called}"] if called else []
    candidates = [folder, *(join(above, name) for name in (*inner, _part(note), "images") if name), above]
    some = [name for name, _, _ in islice(images.values(), LOOKED_AT)]
    for candidate in dict.fromkeys(candidates):
        if any(place.holds(join(candidate, name)) for name in some):
            return candidate
    if not some:
        return folder
    raise DataError(
        f"none of the first {count_of(len(some), 'picture')} that '{note}' names is there, such as '{some[0]}'",
        hint=f"put them into one of: {', '.join(dict.fromkeys(repr(c or '.') for c in candidates))}",
    )


def _names(rows: Sequence[Any], note: str) -> dict[Any, str]:
    """Category id → name."""
    try:
        return {row["id"]: str(row["name"]) for row in rows}
    except (KeyError, TypeError):
        raise DataError(f"a category of '{note}' has no id or no name", hint="is it COCO's instances file?") from None


def _drawn(
    row: Any, images: Mapping[Any, tuple[str, int, int]], folder: str, names: Mapping[Any, str], part: str | None
) -> Drawn:
    """One annotation; a KeyError, TypeError or ValueError where it is not as COCO has it."""
    if not isinstance(row["bbox"], list):
        raise TypeError("its bbox is no list")
    x, y, width, height = map(boxes.number, row["bbox"])
    if row["image_id"] not in images:
        raise ValueError(f"there is no image {row['image_id']}")
    if row["category_id"] not in names:
        raise ValueError(f"there is no category {row['category_id']}")
    picture, picture_width, picture_height = images[row["image_id"]]
    annotator = row.get("annotator")
    box = Box(
        picture=join(folder, picture),
        x0=x,
        y0=y,
        x1=x + width,
        y1=y + height,
        width=picture_width,
        height=picture_height,
        annotator=str(annotator) if annotator is not None else None,
    )
    return Drawn(box, names[row["category_id"]], part)


def _part(note: str) -> str | None:
    """``instances_train2017`` and ``train/_annotations.coco`` are of the train part."""
    folder, _, file = note.rpartition("/")
    words = re.findall("[a-z]+", f"{file} {folder.rpartition('/')[2]}".lower())
    return next((PART_OF_NAME[word] for word in words if word in PART_OF_NAME), None)


def _whole(row: Mapping[str, Any], name: str) -> int:
    value = row.get(name, 0)
    return int(value) if isinstance(value, int | float) and 0 < value < 2**31 else 0


def _reason(error: Exception) -> str:
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)


def _crowds(count: int) -> Iterator[Finding]:
    if count:
        yield Finding(
            check="ignored",
            severity="info",
            message=f"{count_of(count, 'box')} round crowds ignored: each holds many things",
            evidence={"boxes": count},
        )
