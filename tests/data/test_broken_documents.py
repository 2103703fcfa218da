"""Annotations, manifests and names that are broken somewhere: each is read, or refused by a UserError."""

from __future__ import annotations

import contextlib
import copy
import json
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from torchstone.core import registry
from torchstone.core.errors import UserError
from torchstone.data.sources import find_reader

FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

HUGE = 10**400
SCALARS = st.sampled_from(
    [
        HUGE, -HUGE, 2**63, 1e308, float("nan"), float("-inf"), -1, 0, 2.5, True, None, "", "x", "\0", "../a.png",
        "/etc/passwd", "C:\\a", "\ud800", "a" * 5000, "a/" * 600 + "b.png", "9" * 5000, "١", [], {}, [[]], {"id": 1},
    ]
)  # fmt: skip
"""What does not belong into a document, or is more than it should be."""

COCO: dict[str, Any] = {
    "images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 30}],
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    "annotations": [
        {"image_id": 1, "category_id": 1 + n % 2, "bbox": [n, n, 9, 9], "iscrowd": 0, "annotator": "ann"}
        for n in range(4)
    ],
}


def places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Every value in a document of lists and dictionaries: what holds it, and its key there."""
    keys = range(len(document)) if isinstance(document, list) else list(document) if isinstance(document, dict) else ()
    for key in keys:
        yield document, key
        yield from places(document[key])


def spoilt(data: st.DataObject, document: Any) -> Any:
    """A copy with one or two values replaced or taken away."""
    changed = copy.deepcopy(document)
    for _ in range(data.draw(st.integers(1, 2))):
        found = list(places(changed))
        if not found:
            break
        holder, key = data.draw(st.sampled_from(found))
        if data.draw(st.booleans()):
            holder[key] = copy.deepcopy(data.draw(SCALARS))  # it may be spoilt in its turn
        else:
            del holder[key]
    return changed


def read_all(source: Path) -> None:
    """List the source and open every image. A UserError is an answer; so is an OSError of an image alone, which the
    catalog turns into a finding."""
    with contextlib.suppress(UserError):
        root, name = find_reader(str(source))
        reader = registry.readers.ready(name)
        for path in reader.listing(root).paths:
            with contextlib.suppress(UserError, OSError):
                assert reader.image(root, path)


@pytest.fixture
def pictures(tmp_path: Path, photo: Image.Image) -> Path:
    for name in ("a.png", "b.png"):
        photo.crop((0, 0, 40, 30)).save(tmp_path / name)
    return tmp_path


@given(data=st.data())
@FEW
def test_coco(data: st.DataObject, pictures: Path) -> None:
    (pictures / "_annotations.coco.json").write_text(json.dumps(spoilt(data, COCO)))
    read_all(pictures)


@pytest.mark.parametrize("field", [0, 1, 2, 3])
def test_a_coordinate_of_hundreds_of_digits_is_named(field: int, pictures: Path) -> None:
    document = copy.deepcopy(COCO)
    document["annotations"][0]["bbox"][field] = HUGE
    (pictures / "_annotations.coco.json").write_text(json.dumps(document))
    listing = registry.readers.get("coco").listing(str(pictures))
    assert len(listing.paths) == 3
    (finding,) = listing.findings
    assert "is no coordinate" in finding.message
    assert len(finding.message) < 300


@given(data=st.data())
@FEW
def test_voc(data: st.DataObject, pictures: Path) -> None:
    (pictures / "Annotations").mkdir(exist_ok=True)
    (pictures / "JPEGImages").mkdir(exist_ok=True)
    (pictures / "JPEGImages" / "a.png").write_bytes((pictures / "a.png").read_bytes())
    root = ET.Element("annotation")
    for name, text in (("filename", "a.png"), ("size/width", "40"), ("size/height", "30")):
        holder = root
        for step in name.split("/"):
            holder = ET.SubElement(holder, step)
        holder.text = text
    for label in ("cat", "dog", "cat"):
        thing = ET.SubElement(root, "object")
        ET.SubElement(thing, "name").text = label
        box = ET.SubElement(thing, "bndbox")
        for side, value in (("xmin", 1), ("ymin", 2), ("xmax", 20), ("ymax", 21)):
            ET.SubElement(box, side).text = str(value)
    node = data.draw(st.sampled_from(list(root.iter())))
    node.text = str(data.draw(SCALARS)).replace("\0", "").encode(errors="replace").decode()
    content = ET.tostring(root)
    cut = data.draw(st.sampled_from([len(content), len(content) // 2]))
    (pictures / "Annotations" / "a.xml").write_bytes(content[:cut])
    read_all(pictures)


def as_jsonl(rows: list[Any]) -> str:
    return "\n".join(map(json.dumps, rows))


def as_csv(rows: list[Any]) -> str:
    whole = [row for row in rows if isinstance(row, dict)]
    names = list(whole[0]) if whole else []
    lines = [",".join(names), *(",".join(str(row.get(name, "")) for name in names) for row in whole)]
    return "\n".join(lines).encode(errors="replace").decode()


@pytest.mark.parametrize(("suffix", "write"), [("jsonl", as_jsonl), ("csv", as_csv)])
@given(data=st.data())
@FEW
def test_manifests(suffix: str, write: Callable[[list[Any]], str], data: st.DataObject, pictures: Path) -> None:
    rows = [
        {"path": f"{name}.png", "label": label, "part": "train", "group": "g", "time": "2026-11-22"}
        for name, label in (("a", "cat"), ("b", "dog"))
    ]
    manifest = pictures / f"rows.{suffix}"
    manifest.write_text(write(spoilt(data, rows)))
    read_all(manifest)


@pytest.mark.parametrize("file", ["imagenet_class_index.json", "classes.txt"])
@given(data=st.data())
@FEW
def test_names_of_classes(file: str, data: st.DataObject, pictures: Path) -> None:
    for name in ("n01", "n02"):
        (pictures / name).mkdir(exist_ok=True)
        (pictures / name / "a.png").write_bytes((pictures / "a.png").read_bytes())
    names = {"0": ["n01", "cat"], "1": ["n02", "dog"]}
    content = json.dumps(spoilt(data, names))
    (pictures / file).write_text(content if file.endswith("json") else content.replace("],", "\n"))
    read_all(pictures)
