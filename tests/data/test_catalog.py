"""What enters the catalog, what is left out and reported, and that nothing half-written stays."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from torchstone.core import tables
from torchstone.core.errors import DataError
from torchstone.core.values import Catalog, Finding
from torchstone.data.catalog import read
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
    assert table.columns == ["item", "path", "label", "sha256", "width", "height", "group", "part"]
    assert table["item"].n_unique() == 1797
    assert (table["width"] == 8).all()
    assert [str(table[name].dtype) for name in ("label", "group", "part")] == ["Int32", "String", "String"]


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


def test_converted_images_are_counted_by_kind(tmp_path: Path, make_folder: MakeFolder, photo: Image.Image) -> None:
    root = make_folder({"a": 2, "b": 2})
    small = photo.resize((40, 30))
    for index in range(3):
        small.convert("CMYK").save(root / "a" / f"cmyk{index}.jpg")
    small.convert("RGBA").save(root / "a" / "alpha.png")
    small.save(root / "b" / "animated.gif", save_all=True, append_images=[small.rotate(90)])
    Image.fromarray(np.asarray(small.convert("L")).astype(np.uint16) * 257).save(root / "b" / "sixteen.png")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    small.save(root / "b" / "lying.jpg", exif=exif)
    catalog = read(str(root), tmp_path / "out")
    assert catalog.images == 11
    found = named(load(tmp_path / "out"), "converted")
    assert {finding.evidence["kind"]: finding.evidence["images"] for finding in found} == {
        "cmyk": 3, "alpha": 1, "animated": 1, "16-bit": 1, "exif-rotated": 1,
    }  # fmt: skip
    assert {finding.severity for finding in found} == {"info"}
    size = {row["item"]: (row["width"], row["height"]) for row in rows(catalog)}
    assert size["b/lying.jpg"] == (30, 40)


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
    assert load(tmp_path) == []
