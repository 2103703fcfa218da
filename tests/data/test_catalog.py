"""What enters the catalog, what is left out and reported, and that nothing half-written stays."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from torchstone.core import files, tables
from torchstone.core.contracts import Box
from torchstone.core.errors import DataError
from torchstone.core.values import Catalog, Finding
from torchstone.data import measure
from torchstone.data.catalog import fault_of, fingerprint, read
from torchstone.data.findings import load

MakeFolder = Callable[..., Path]


def rows(catalog: Catalog) -> list[dict[str, object]]:
    return tables.read(catalog.table)[0].to_dicts()


def named(findings: list[Finding], check: str) -> list[Finding]:
    return [finding for finding in findings if finding.check == check]


def test_digits(tmp_path: Path) -> None:
    catalog = read("digits", tmp_path)
    assert catalog.images == 1797
    assert catalog.reader == "digits"
    assert load(tmp_path) == []
    assert Catalog.load(tmp_path / "catalog.json") == catalog
    table, _ = tables.read(catalog.table)
    assert table.columns == [
        "item", "path", "label", "sha256", "picture", "group", "part", "time", "width", "height", "format", "bytes",
        "converted", *measure.COLUMNS,
    ]  # fmt: skip
    assert table["item"].n_unique() == 1797
    assert (table["width"] == 8).all()
    types = {"Int32": ("label", "picture", "width", "height"), "Int64": ("bytes",), "Float32": measure.COLUMNS}
    types["String"] = ("item", "path", "sha256", "group", "part", "time", "format", "converted")
    for kind, names in types.items():
        assert {str(table[name].dtype) for name in names} == {kind}


def test_a_copy_in_another_file_format_has_the_same_hash(
    tmp_path: Path, make_folder: MakeFolder, photo: Image.Image
) -> None:
    root = make_folder({"a": 2, "b": 2})
    image = photo.resize((60, 40))
    image.save(root / "a" / "x.png")
    image.save(root / "b" / "y.bmp")
    image.transpose(Image.Transpose.ROTATE_90).save(root / "b" / "z.png")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    image.transpose(Image.Transpose.ROTATE_90).save(root / "b" / "upright.png", exif=exif)
    hashes = {row["item"]: row["sha256"] for row in rows(read(str(root), tmp_path / "out"))}
    assert hashes["a/x.png"] == hashes["b/y.bmp"] == hashes["b/upright.png"]
    assert len(set(hashes.values())) == 6


def test_the_same_pixels_in_another_shape_are_another_image(tmp_path: Path) -> None:
    for index, shape in enumerate([(4, 9, 3), (9, 4, 3), (6, 6, 3)]):
        (tmp_path / "in" / f"{index}").mkdir(parents=True)
        Image.fromarray(np.zeros(shape, np.uint8)).save(tmp_path / "in" / f"{index}" / "black.png")
    assert len({row["sha256"] for row in rows(read(str(tmp_path / "in"), tmp_path / "out"))}) == 3


def test_the_fingerprint_is_of_images_and_labels_alone(tmp_path: Path, make_folder: MakeFolder) -> None:
    first = read(str(make_folder({"a": 3, "b": 4}, tmp_path / "first")), tmp_path / "1")
    renamed = make_folder({"a": 3, "b": 4}, tmp_path / "second")
    (renamed / "a" / "0.png").rename(renamed / "a" / "zzz.png")
    assert read(str(renamed), tmp_path / "2").fingerprint == first.fingerprint
    (renamed / "a" / "zzz.png").rename(renamed / "b" / "zzz.png")
    assert read(str(renamed), tmp_path / "3").fingerprint != first.fingerprint


def test_unusable_images_are_left_out_and_each_is_reported(
    tmp_path: Path, make_folder: MakeFolder, photo_bytes: bytes
) -> None:
    root = make_folder({"a": 5, "b": 5})
    bad = {
        "a/empty.jpg": b"",
        "a/page.jpg": b"<html>404</html>",
        "b/truncated.jpg": photo_bytes[: len(photo_bytes) // 2],
    }
    for name, content in bad.items():
        (root / name).write_bytes(content)
    (root / "b" / "gone.jpg").symlink_to(root / "nowhere.jpg")
    (root / "b" / "memory.jpg").symlink_to("/proc/self/mem")  # a file that not even root can read
    catalog = read(str(root), tmp_path / "out")
    assert catalog.images == 10
    found = named(load(tmp_path / "out"), "unreadable")
    assert sorted(finding.items[0] for finding in found) == sorted([*bad, "b/gone.jpg", "b/memory.jpg"])
    for finding in found:
        assert finding.severity == "warning"
        assert finding.items[0] in finding.message
    reasons = {finding.items[0]: finding.evidence["reason"] for finding in found}
    assert "empty" in reasons["a/empty.jpg"]
    assert "not an image" in reasons["a/page.jpg"]
    assert "truncated" in reasons["b/truncated.jpg"]
    assert "cannot be read" in reasons["b/gone.jpg"]
    assert "cannot be read" in reasons["b/memory.jpg"]


def test_what_was_converted_and_of_which_format_is_told_for_each_image(
    tmp_path: Path, make_folder: MakeFolder, photo: Image.Image
) -> None:
    root = make_folder({"a": 2, "b": 2})
    small = photo.resize((40, 30))
    small.convert("CMYK").save(root / "a" / "cmyk.jpg")
    small.convert("RGBA").save(root / "a" / "alpha.png")
    small.save(root / "b" / "animated.gif", save_all=True, append_images=[small.rotate(90)])
    Image.fromarray(np.asarray(small.convert("L")).astype(np.uint16) * 257).save(root / "b" / "sixteen.png")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    small.save(root / "b" / "lying.jpg", exif=exif)
    small.convert("CMYK").save(root / "b" / "both.jpg", exif=exif)
    small.save(root / "b" / "lie.png", "JPEG")
    catalog = read(str(root), tmp_path / "out")
    table = {row["item"]: row for row in rows(catalog)}
    assert {item: row["converted"] for item, row in table.items() if row["converted"]} == {
        "a/cmyk.jpg": "cmyk", "a/alpha.png": "alpha", "b/animated.gif": "animated", "b/sixteen.png": "16-bit",
        "b/lying.jpg": "exif-rotated", "b/both.jpg": "cmyk,exif-rotated",
    }  # fmt: skip
    assert (table["b/lying.jpg"]["width"], table["b/lying.jpg"]["height"]) == (30, 40)
    assert [table[name]["format"] for name in ("b/lie.png", "b/animated.gif", "a/0.png")] == ["JPEG", "GIF", "PNG"]
    assert all(row["bytes"] == (root / str(item)).stat().st_size for item, row in table.items())


def test_the_measures_are_those_of_the_pixels(tmp_path: Path, make_folder: MakeFolder, photo: Image.Image) -> None:
    root = make_folder({"a": 2, "b": 2})
    photo.save(root / "b" / "photo.png")
    table = {row["item"]: row for row in rows(read(str(root), tmp_path / "out"))}
    expected = measure.measure(measure.luma_of(np.asarray(photo)))
    assert [table["b/photo.png"][name] for name in measure.COLUMNS] == expected.tolist()


def test_images_of_the_same_picture_share_a_number(tmp_path: Path, make_folder: MakeFolder, photo: Image.Image) -> None:
    root = make_folder({"a": 4, "b": 4})
    photo.save(root / "a" / "photo.png")
    photo.save(root / "a" / "zcopy.bmp")
    photo.resize((320, 214)).save(root / "b" / "half.jpg", quality=60)
    (root / "b" / "torn.png").write_bytes(b"nothing")
    catalog = read(str(root), tmp_path / "out")
    numbers = {row["item"]: int(str(row["picture"])) for row in rows(catalog)}
    same = {numbers[item] for item in ("a/photo.png", "a/zcopy.bmp", "b/half.jpg")}
    assert len(same) == 1
    assert len({number for item, number in numbers.items() if number not in same}) == 8
    assert sorted(set(numbers.values())) == list(range(9))
    similar, header = tables.read(tmp_path / "out" / "similar.parquet")
    found = {(row["item_a"], row["item_b"]): row["score"] for row in similar.to_dicts()}
    assert list(found) == [("a/photo.png", "b/half.jpg")]  # of equal pixels, the first stands for both
    assert 0.95 < found["a/photo.png", "b/half.jpg"] <= 1.0001
    assert (header["root"], header["reader"]) == (str(root), "folder")


def test_nothing_but_the_files_named_is_left(tmp_path: Path, make_folder: MakeFolder) -> None:
    read(str(make_folder({"a": 3, "b": 3})), tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"catalog.parquet", "similar.parquet", "catalog.json", "findings.json"}


COCO = {
    "images": [{"id": 1, "file_name": "photo.png", "width": 640, "height": 427}],
    "categories": [{"id": 1, "name": "petal"}, {"id": 2, "name": "leaf"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [200, 100, 120, 80]},
        {"id": 2, "image_id": 1, "category_id": 2, "bbox": [10.5, 300, 50, 60]},
        {"id": 3, "image_id": 1, "category_id": 2, "bbox": [30, 40, 0, 25]},
        {"id": 4, "image_id": 1, "category_id": 1, "bbox": [700, 40, 30, 25]},
    ],
}


def test_boxes_without_anything_in_them_are_left_out_and_each_is_reported(tmp_path: Path, photo: Image.Image) -> None:
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    (root / "images").mkdir()
    photo.save(root / "images" / "photo.png")
    (root / "annotations" / "instances_all.json").write_text(json.dumps(COCO))
    catalog = read(str(root), tmp_path / "out")
    assert catalog.images == 2
    found = named(load(tmp_path / "out"), "boxes")
    assert [finding.evidence["reason"] for finding in found] == ["has no area", "lies outside of the picture"]
    assert all(len(finding.items) == 1 and finding.severity == "warning" for finding in found)
    kept = rows(catalog)
    corners = [[row[f"box_{side}"] for side in ("x0", "y0", "x1", "y1")] for row in kept]
    assert corners == [[200, 100, 320, 180], [10.5, 300, 60.5, 360]]
    assert {(row["box_width"], row["box_height"], row["box_annotator"]) for row in kept} == {(640, 427, None)}
    assert {str(row["box_picture"]).rpartition("/")[2] for row in kept} == {"photo.png"}
    assert kept[0]["width"] == 120


@pytest.mark.parametrize(
    ("box", "fault"),
    [
        ((0, 0, 10, 10), None),
        ((-5, -5, 1, 1), None),
        ((90, 40, 200, 200), None),
        ((5, 5, 5, 9), "has no area"),
        ((5, 9, 8, 7), "has no area"),
        ((float("nan"), 0, 9, 9), "has no area"),
        ((100, 0, 120, 10), "lies outside of the picture"),
        ((0, 50, 10, 60), "lies outside of the picture"),
        ((-9, 0, 0, 10), "lies outside of the picture"),
    ],
)
def test_the_fault_of_a_box(box: tuple[float, float, float, float], fault: str | None) -> None:
    assert fault_of(Box("p.jpg", *box, width=100, height=50)) == fault
    if fault != "lies outside of the picture":
        assert fault_of(Box("p.jpg", *box, width=0, height=0)) == fault


@given(st.lists(st.tuples(st.binary(min_size=32, max_size=32), st.integers(0, 999))))
def test_the_fingerprint_is_the_digest_of_the_sorted_pairs(images: list[tuple[bytes, int]]) -> None:
    hashes, labels = [sha256.hex() for sha256, _ in images], [label for _, label in images]
    expected = files.digest(sorted([sha256, label] for sha256, label in zip(hashes, labels, strict=True)))
    assert fingerprint(hashes, labels) == fingerprint(hashes[::-1], labels[::-1]) == expected


def test_a_class_without_a_usable_image_is_refused_and_nothing_is_written(
    tmp_path: Path, make_folder: MakeFolder
) -> None:
    root = make_folder({"good": 3, "bad": 1})
    (root / "bad" / "0.png").write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"class 'bad' of .* \(bad/0.png: not an image") as caught:
        read(str(root), tmp_path / "out")
    assert caught.value.hint
    assert not (tmp_path / "out").exists()


def test_the_sources_own_parts_are_kept(tmp_path: Path, make_folder: MakeFolder) -> None:
    root = make_folder({"train/a": 3, "train/b": 3, "val/a": 1, "val/b": 2})
    catalog = read(str(root), tmp_path / "out")
    parts = [row["part"] for row in rows(catalog)]
    assert (parts.count("train"), parts.count("test")) == (6, 3)
    assert catalog.classes == ("a", "b")


def test_a_run_that_is_read_again_elsewhere_still_fits(tmp_path: Path, make_folder: MakeFolder) -> None:
    read(str(make_folder({"a": 3, "b": 3})), tmp_path / "run" / "data")
    shutil.move(tmp_path / "run", tmp_path / "moved")
    from torchstone.core.run import Run

    catalog = Run(tmp_path / "moved").catalog()
    assert len(rows(catalog)) == catalog.images == 6


def test_the_real_photos(tmp_path: Path, shared: Callable[[str], Path]) -> None:
    catalog = read(str(shared("hymenoptera")), tmp_path)
    assert (catalog.images, catalog.classes) == (398, ("ants", "bees"))
    assert [one.check for one in load(tmp_path)] == ["parts"], "its val is the test part"
