"""Boxes on pictures, annotated as Pascal VOC or COCO have it, become images to classify."""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from torchstone.core import tables
from torchstone.core.contracts import Reader
from torchstone.core.errors import DataError
from torchstone.data import catalog
from torchstone.data import findings as reported
from torchstone.data.preprocess import decode, default_preprocess
from torchstone.data.readers.coco import Coco
from torchstone.data.readers.voc import Voc
from torchstone.data.sources import find_reader, source_digest

BOXES = {
    "one": [("cell", (10, 20, 60, 90)), ("dust", (5.5, 7.25, 30, 40)), ("cell", (10, 20, 60, 90))],
    "two": [("dust", (0, 0, 100, 80)), ("cell", (90, 70, 140, 120))],
    "three": [("cell", (1, 2, 3, 4)), ("dust", (50, 50, 50, 60))],
}
"""The last of 'two' reaches out of the picture of 100 × 80 pixels, the last of 'three' has no area."""

PARTS = {"one": "train", "two": "train", "three": "val"}

MakeSource = Callable[..., Path]


def xml(name: str, objects: list[tuple[str, tuple]]) -> str:
    rows = "".join(
        f"<object><name>{label}</name><bndbox><ymax>{y1}</ymax><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax>"
        "</bndbox></object>"
        for label, (x0, y0, x1, y1) in objects
    )
    size = "<size><width>100</width><height>80</height><depth>3</depth></size>"
    return f"<annotation><filename>{name}.png</filename>{size}{rows}</annotation>"


def pictures(folder: Path, photo: Image.Image) -> dict[str, np.ndarray]:
    folder.mkdir(parents=True)
    made = {}
    for index, name in enumerate(BOXES):
        piece = photo.crop((40 * index, 30 * index, 40 * index + 100, 30 * index + 80))
        piece.save(folder / f"{name}.png")
        made[name] = np.asarray(piece)
    return made


@pytest.fixture
def voc(tmp_path: Path, photo: Image.Image) -> Path:
    root = tmp_path / "VOCdevkit"
    pictures(root / "VOC2030" / "JPEGImages", photo)
    (root / "VOC2030" / "Annotations").mkdir()
    (root / "VOC2030" / "ImageSets" / "Main").mkdir(parents=True)
    for name, objects in BOXES.items():
        (root / "VOC2030" / "Annotations" / f"{name}.xml").write_text(xml(name, objects))
    for part in ("train", "val"):
        listed = [name for name in BOXES if PARTS[name] == part]
        (root / "VOC2030" / "ImageSets" / "Main" / f"{part}.txt").write_text("\n".join(listed) + "\n")
    (root / "README.md").touch()
    return root


@pytest.fixture
def coco(tmp_path: Path, photo: Image.Image) -> Path:
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    made = pictures(root / "all", photo)
    for part in ("train", "val"):
        (root / f"{part}2030").mkdir()
        names = [name for name in made if PARTS[name] == part]
        for name in names:
            (root / "all" / f"{name}.png").rename(root / f"{part}2030" / f"{name}.png")
        write_coco(root / "annotations" / f"instances_{part}2030.json", names)
        (root / "annotations" / f"captions_{part}2030.json").write_text('{"images": [], "annotations": []}')
    (root / "all").rmdir()
    return root


def write_coco(path: Path, names: list[str], **changes: Any) -> None:
    numbers = {name: index for index, name in enumerate(BOXES)}
    content = {
        "images": [{"id": numbers[name], "file_name": f"{name}.png", "width": 100, "height": 80} for name in names],
        "categories": [{"id": 7, "name": "cell"}, {"id": 90, "name": "dust"}, {"id": 91, "name": "never"}],
        "annotations": [
            {
                "id": 10 * numbers[name] + index,
                "image_id": numbers[name],
                "category_id": 7 if label == "cell" else 90,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
            }
            for name in names
            for index, (label, (x0, y0, x1, y1)) in enumerate(BOXES[name])
        ],
    }
    path.write_text(json.dumps({**content, **changes}))


@pytest.fixture(params=["voc", "coco"])
def source(request: pytest.FixtureRequest) -> tuple[Reader, Path]:
    """Both forms hold the same boxes."""
    reader: Reader = Voc() if request.param == "voc" else Coco()
    return reader, request.getfixturevalue(request.param)


def test_every_box_is_an_item(source: tuple[Reader, Path]) -> None:
    reader, root = source
    assert find_reader(str(root)) == (str(root), "voc" if isinstance(reader, Voc) else "coco")
    listing = catalog.settled(reader.listing(str(root)))
    assert listing.classes == ("cell", "dust")
    found = {
        (Path(box.picture).stem, listing.classes[label], box[1:5], part)
        for box, label, part in zip(listing.boxes, listing.labels, listing.parts, strict=True)
    }
    assert found == {
        (name, label, box, "train" if PARTS[name] == "train" else "test")
        for name, objects in BOXES.items()
        for label, box in objects
    }
    assert len(listing.paths) == len(set(listing.paths)) == 7
    assert list(listing.groups) == [box.picture for box in listing.boxes]
    assert {(box.width, box.height) for box in listing.boxes} == {(100, 80)}
    assert sum(path.endswith("one.png#10,20,60,90") for path in listing.paths) == 1
    assert sum(path.endswith("one.png#10,20,60,90~2") for path in listing.paths) == 1


def test_an_item_is_what_its_box_cuts_out(source: tuple[Reader, Path], photo: Image.Image) -> None:
    reader, root = source
    listing = reader.listing(str(root))
    by_end = {path.rpartition("/")[2]: path for path in listing.paths}

    def cut(item: str) -> np.ndarray:
        return decode(reader.image(str(root), by_end[item]), default_preprocess(8))

    one, two = (np.asarray(photo.crop((40 * n, 30 * n, 40 * n + 100, 30 * n + 80))) for n in (0, 1))
    np.testing.assert_array_equal(cut("one.png#10,20,60,90"), one[20:80, 10:60])  # the picture ends at 80
    np.testing.assert_array_equal(cut("one.png#10,20,60,90~2"), one[20:80, 10:60])
    np.testing.assert_array_equal(cut("one.png#5.5,7.25,30,40"), one[7:40, 5:30])
    np.testing.assert_array_equal(cut("two.png#90,70,140,120"), two[70:, 90:])
    with pytest.raises(DataError, match="no area"):
        cut("three.png#50,50,50,60")


def test_threads_cut_from_many_pictures_at_once(source: tuple[Reader, Path]) -> None:
    reader, root = source
    paths = [path for path in reader.listing(str(root)).paths if not path.endswith("#50,50,50,60")]
    alone = {path: reader.image(str(root), path) for path in paths}
    with ThreadPoolExecutor(8) as pool:
        assert all(
            content == alone[path]
            for path, content in zip(
                paths * 20, pool.map(lambda p: reader.image(str(root), p), paths * 20), strict=True
            )
        )


def test_an_archive_of_it_reads_the_same(source: tuple[Reader, Path], tmp_path: Path) -> None:
    reader, root = source
    packed = tmp_path / "packed.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for file in sorted(root.rglob("*")):
            archive.write(file, file.relative_to(tmp_path))
    unpacked, listing = reader.listing(str(root)), reader.listing(str(packed))
    assert [path.rpartition("/")[2] for path in listing.paths] == [p.rpartition("/")[2] for p in unpacked.paths]
    assert listing.parts == unpacked.parts
    assert reader.image(str(packed), listing.paths[0]) == reader.image(str(root), unpacked.paths[0])


def test_a_catalog_is_made_of_it(source: tuple[Reader, Path], tmp_path: Path) -> None:
    _, root = source
    made = catalog.read(str(root), tmp_path / "data")
    table, _ = tables.read(made.table)
    assert made.images == 6
    assert table["box_x1"].to_list().count(60.0) == 2
    assert any(finding.check == "boxes" for finding in reported.load(tmp_path / "data"))


def test_a_changed_picture_or_annotation_is_another_source(source: tuple[Reader, Path]) -> None:
    reader, root = source
    digests = {source_digest(str(root))}
    picture = next(root.rglob("one.png"))
    picture.write_bytes(next(root.rglob("two.png")).read_bytes())
    digests.add(source_digest(str(root)))
    note = next(file for pattern in ("one.xml", "instances_train*.json") for file in root.rglob(pattern))
    note.write_text(note.read_text().replace("cell", "dust"))
    digests.add(source_digest(str(root)))
    assert len(digests) == 3
    assert Counter(reader.listing(str(root)).labels)[0] < 4


@pytest.mark.parametrize("path", ["one.png", "one.png#", "one.png#1,2,3", "one.png#a,b,c,d", "one.png#0,0,1e999,5"])
def test_a_path_that_names_no_box_is_refused(voc: Path, path: str) -> None:
    with pytest.raises(DataError, match="names no box"):
        Voc().image(str(voc), path)


@pytest.mark.parametrize("box", ["100,0,120,40", "0,80,10,90", "-20,0,0,40", "0,-9,10,0"])
def test_a_box_beside_its_picture_is_refused(voc: Path, box: str) -> None:
    with pytest.raises(DataError, match="beside its picture"):
        Voc().image(str(voc), f"VOC2030/JPEGImages/one.png#{box}")


class TestVoc:
    def test_pictures_in_no_list_are_left_out_and_counted(self, voc: Path) -> None:
        (voc / "VOC2030" / "ImageSets" / "Main" / "val.txt").unlink()
        listing = catalog.settled(Voc().listing(str(voc)))
        assert set(listing.parts) == {None}
        assert len(listing.paths) == 5
        assert listing.findings[0].items == ("VOC2030/Annotations/three.xml",)

    def test_the_folder_of_the_annotations_is_a_root_itself(self, voc: Path) -> None:
        (inner,) = {path.parent for path in voc.rglob("Annotations")}
        assert find_reader(str(inner))[1] == "voc"

    def test_without_lists_there_is_no_split(self, voc: Path) -> None:
        for file in (voc / "VOC2030" / "ImageSets" / "Main").iterdir():
            file.unlink()
        listing = Voc().listing(str(voc))
        assert len(listing.paths) == 7
        assert set(listing.parts) == {None}

    def test_folders_below_annotations_are_annotators(self, voc: Path) -> None:
        notes = voc / "VOC2030" / "Annotations"
        for annotator in ("ann", "bob"):
            (notes / annotator).mkdir()
            (notes / annotator / "one.xml").write_text(xml("one", BOXES["one"][:2]))
        for file in notes.glob("*.xml"):
            file.unlink()
        listing = Voc().listing(str(voc))
        assert sorted((box.annotator, box.x0) for box in listing.boxes) == [
            ("ann", 5.5), ("ann", 10.0), ("bob", 5.5), ("bob", 10.0),
        ]  # fmt: skip
        assert len(set(listing.paths)) == 4

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            ("<annotation>", "no XML"),
            ("", "no XML"),
            ('<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>', "DOCTYPE"),
            (xml("one", [("cell", ("nan", 1, 2, 3))]), "no box of four numbers"),
            (xml("one", [("cell", ("", 1, 2, 3))]), "no box of four numbers"),
            (xml("one", [("cell", (0, 0, 9e99, 3))]), "no box of four numbers"),
            (xml("one", [("", (0, 0, 2, 3))]), "no name"),
            ("<annotation><object><name>cell</name></object></annotation>", "no box of four numbers"),
        ],
    )
    def test_an_annotation_that_cannot_be_used_is_named(self, voc: Path, content: str, reason: str) -> None:
        (voc / "VOC2030" / "Annotations" / "one.xml").write_text(content)
        listing = Voc().listing(str(voc))
        assert len(listing.paths) == 4
        (finding,) = listing.findings
        assert finding.check == "annotations"
        assert finding.items[0].startswith("VOC2030/Annotations/one.xml")
        assert reason in finding.message

    def test_a_picture_that_is_missing_is_named(self, voc: Path) -> None:
        (voc / "VOC2030" / "JPEGImages" / "one.png").unlink()
        listing = Voc().listing(str(voc))
        assert len(listing.paths) == 4
        assert "no picture is called 'one'" in listing.findings[0].message

    def test_a_listed_picture_without_annotation_is_named(self, voc: Path) -> None:
        (voc / "VOC2030" / "Annotations" / "one.xml").unlink()
        assert Voc().listing(str(voc)).findings[0].items == ("one",)

    def test_two_years_are_told_apart_by_their_folder(self, voc: Path) -> None:
        (voc / "VOC2031" / "JPEGImages").mkdir(parents=True)
        (voc / "VOC2031" / "Annotations").mkdir()
        (voc / "VOC2031" / "Annotations" / "one.xml").write_text(xml("one", BOXES["one"]))
        with pytest.raises(DataError, match="2 VOC folders") as caught:
            Voc().listing(str(voc))
        assert "VOC2031" in str(caught.value.hint)
        assert len(Voc().listing(str(voc / "VOC2030")).paths) == 7

    def test_nothing_to_tell_apart_is_refused(self, voc: Path) -> None:
        for file in (voc / "VOC2030" / "Annotations").iterdir():
            file.write_text(xml(file.stem, [("cell", (1, 2, 3, 4))]))
        with pytest.raises(DataError, match="only of 'cell'"):
            Voc().listing(str(voc))

    def test_the_real_set(self, shared: Callable[[str], Path]) -> None:
        """BCCD: blood cells, 364 pictures, two boxes without an area."""
        root = str(shared("bccd"))
        listing = Voc().listing(root)
        assert listing.classes == ("Platelets", "RBC", "WBC")
        assert len(listing.paths) == 4888
        assert len({box.picture for box in listing.boxes}) == 364
        assert sum(box.x1 <= box.x0 or box.y1 <= box.y0 for box in listing.boxes) == 2
        pictures_of = {part: set() for part in ("train", "val", "test")}
        for box, part in zip(listing.boxes, listing.parts, strict=True):
            pictures_of[str(part)].add(box.picture)
        assert {part: len(found) for part, found in pictures_of.items()} == {"train": 205, "val": 87, "test": 72}
        pixels = decode(Voc().image(root, listing.paths[0]), default_preprocess(8))
        box = listing.boxes[0]
        assert pixels.shape[:2] == (box.y1 - box.y0, box.x1 - box.x0)


class TestCoco:
    def test_crowds_are_left_out_and_counted(self, coco: Path) -> None:
        path = coco / "annotations" / "instances_train2030.json"
        content = json.loads(path.read_text())
        content["annotations"][0]["iscrowd"] = 1
        path.write_text(json.dumps(content))
        listing = Coco().listing(str(coco))
        assert len(listing.paths) == 6
        assert listing.findings[0].evidence == {"boxes": 1}

    def test_roboflows_folders(self, tmp_path: Path, photo: Image.Image) -> None:
        for part in ("train", "valid"):
            pictures(tmp_path / part, photo)
            write_coco(tmp_path / part / "_annotations.coco.json", list(BOXES))
        assert find_reader(str(tmp_path)) == (str(tmp_path), "coco")
        listing = Coco().listing(str(tmp_path))
        assert Counter(listing.parts) == {"train": 7, "val": 7}
        assert listing.paths[0].startswith("train/one.png#")
        assert Coco().image(str(tmp_path), listing.paths[0])

    def test_one_file_beside_a_folder_of_images(self, tmp_path: Path, photo: Image.Image) -> None:
        pictures(tmp_path / "images", photo)
        names = list(BOXES)
        write_coco(tmp_path / "labels.json", names)
        content = json.loads((tmp_path / "labels.json").read_text())
        for row in content["annotations"]:
            row["annotator"] = "ann"
        (tmp_path / "labels.json").write_text(json.dumps(content))
        listing = Coco().listing(str(tmp_path))
        assert {box.annotator for box in listing.boxes} == {"ann"}
        assert listing.paths[0].startswith("images/one.png#")

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"annotations": [{"id": 5, "image_id": 0, "category_id": 7}]}, "annotation 5 (it has no 'bbox')"),
            ({"annotations": [{"id": 5, "image_id": 99, "category_id": 7, "bbox": [0, 0, 1, 1]}]}, "no image 99"),
            ({"annotations": [{"id": 5, "image_id": 0, "category_id": 1, "bbox": [0, 0, 1, 1]}]}, "no category 1"),
            ({"annotations": [{"id": 5, "image_id": 0, "category_id": 7, "bbox": [0, 0, 1]}]}, "annotation 5"),
            ({"annotations": [{"id": 5, "image_id": 0, "category_id": 7, "bbox": "0123"}]}, "bbox is no list"),
            ({"annotations": ["?"]}, "annotation 0"),
            ({"images": [{"id": 0, "file_name": "../x.png"}, {"id": 1, "file_name": "two.png"}]}, "leads out"),
        ],
    )
    def test_an_annotation_that_cannot_be_used_is_named(self, coco: Path, changes: dict, reason: str) -> None:
        write_coco(coco / "annotations" / "instances_train2030.json", ["one", "two"], **changes)
        listing = Coco().listing(str(coco))
        assert any(reason in finding.message for finding in listing.findings)
        assert all(".." not in path for path in listing.paths)

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            ("{", "no JSON"),
            ("[]", "no list 'images'"),
            ('{"images": [], "annotations": {}, "categories": []}', "no list 'annotations'"),
            ('{"images": [], "annotations": [], "categories": [{}]}', "a category"),
            (
                '{"images": [{"id": 1, "file_name": "no.png"}], "annotations": [], "categories": []}',
                "none of the first",
            ),
            ('{"images": [{"id": 1, "file_name": "\\ud800.png"}], "annotations": [], "categories": []}', "no JSON"),
        ],
    )
    def test_a_file_that_is_not_cocos_is_refused(self, coco: Path, content: str, reason: str) -> None:
        (coco / "annotations" / "instances_train2030.json").write_text(content)
        with pytest.raises(DataError, match=reason) as caught:
            Coco().listing(str(coco))
        assert caught.value.hint
