"""What the audit says of images that are wrong in a known way, and that it is silent about sound ones."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from made_images import changed, fill, picture
from torchstone.audit import audit, dark
from torchstone.core import registry, tables
from torchstone.core.values import Finding
from torchstone.data.catalog import read
from torchstone.data.findings import load
from torchstone.data.split import split

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """Two classes of 60 different images."""
    return fill(tmp_path / "images", {"cat": 60, "dog": 60})


def audited(root: Path, with_split: bool = True) -> list[Finding]:
    out = root.parent / "out"
    catalog = read(str(root), out)
    parts = split(catalog, out, seed=0) if with_split else None
    return audit(catalog, load(out), parts)


def only(findings: list[Finding], check: str) -> Finding:
    (finding,) = [finding for finding in findings if finding.check == check]
    return finding


def test_sound_images_have_no_findings(sound: Path) -> None:
    assert audited(sound) == []


def test_unreadable_files_are_summed_up_in_one_finding(sound: Path) -> None:
    for index in range(5):
        (sound / "cat" / f"bad{index}.jpg").write_bytes(b"nonsense")
    finding = only(audited(sound), "unreadable")
    assert finding.message.startswith("5 images (4.0 %) left out as unusable: cat/bad0.jpg (not an image")
    assert finding.message.endswith("and 2 more")
    assert (len(finding.items), finding.decision) == (5, "drop")
    assert set(finding.evidence["reasons"]) == set(finding.items)


def test_duplicates_are_found_whatever_their_encoding(sound: Path) -> None:
    picture(3).save(sound / "cat" / "copy.bmp")
    picture(3).save(sound / "cat" / "copy.tiff")
    findings = audited(sound)
    finding = only(findings, "duplicates")
    assert finding.evidence == {"images": 2, "pictures": 1}
    assert finding.items == ("cat/copy.bmp", "cat/copy.tiff")
    assert finding.groups == (("cat/3.png", "cat/copy.bmp", "cat/copy.tiff"),)
    assert "2 images (1.7 %)" in finding.message or "2 images (1.6 %)" in finding.message
    assert not [one for one in findings if one.check == "near_duplicates"]


def test_copies_with_other_pixels_are_near_duplicates(tmp_path: Path) -> None:
    root = fill(tmp_path / "images", {"cat": 50, "dog": 50}, side=64)
    original = picture(3, 64, 64)
    original.save(root / "cat" / "again.jpg", quality=60)
    original.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(root / "cat" / "mirrored.png")
    original.save(root / "cat" / "copy.png")
    finding = only(audited(root), "near_duplicates")
    assert finding.groups == (("cat/3.png", "cat/again.jpg", "cat/mirrored.png"),)
    assert finding.items == finding.groups[0][1:]
    assert finding.decision == "review"
    assert only(audited(root), "duplicates").items == ("cat/copy.png",)


def test_a_picture_under_two_labels_is_an_error(sound: Path) -> None:
    picture(3).save(sound / "dog" / "mistaken.png")
    findings = audited(sound)
    assert findings[0].check == "conflicting_labels"
    assert findings[0].severity == "error"
    assert "cat/3.png (cat) = dog/mistaken.png (dog)" in findings[0].message
    picture(4).save(sound / "cat" / "copy.png")  # a mere duplicate is no conflict
    assert only(audited(sound), "conflicting_labels").evidence == {"pictures": 1, "images": 2}


def test_a_picture_that_only_looks_alike_under_two_labels_is_to_be_looked_at(tmp_path: Path) -> None:
    root = fill(tmp_path / "images", {"cat": 50, "dog": 50}, side=64)
    picture(3, 64, 64).save(root / "dog" / "mistaken.jpg", quality=60)
    finding = only(audited(root), "conflicting_labels")
    assert (finding.severity, finding.decision) == ("warning", "review")
    assert finding.groups == (("cat/3.png", "dog/mistaken.jpg"),)


def test_leaks_between_the_sources_own_parts_are_errors_and_mended_by_the_split(tmp_path: Path) -> None:
    root = tmp_path / "images"
    fill(root, {"train/cat": 60, "train/dog": 60, "test/cat": 10, "test/dog": 10})
    picture(0).save(root / "test" / "dog" / "leak.png")  # the number 0 is the first cat of train
    findings = audited(root)
    leak = only(findings, "leaks")
    assert leak.severity == "error"
    assert leak.evidence == {"parts": ["train", "test"], "pictures": 1, "identical": 1, "images": 1}
    assert "train and test of the source's own parts" in leak.message
    assert (leak.items, leak.groups) == (("train/cat/0.png",), (("test/dog/leak.png", "train/cat/0.png"),))
    assert only(findings, "split").evidence["images"] == 1


def test_a_leak_with_other_pixels_is_a_leak(tmp_path: Path) -> None:
    root = tmp_path / "images"
    fill(root, {"train/cat": 40, "train/dog": 40, "test/cat": 10, "test/dog": 10}, side=64)
    picture(0, 64, 64).save(root / "test" / "cat" / "leak.jpg", quality=70)
    leak = only(audited(root, with_split=False), "leaks")
    assert leak.evidence["identical"] == 0
    assert leak.items == ("train/cat/0.png",)


def test_a_leak_in_a_split_made_by_hand_is_found(sound: Path) -> None:
    picture(3).save(sound / "cat" / "copy.png")
    out = sound.parent / "out"
    catalog = read(str(sound), out)
    parts = split(catalog, out, seed=0)
    table, header = tables.read(parts.table)
    items = table["item"].to_list()
    mixed = ["test" if item == "cat/copy.png" else "train" for item in items]
    tables.write(parts.table, tables.frame({"item": items, "part": mixed}), header)
    leak = only(audit(catalog, load(out), parts), "leaks")
    assert "train and test of the split" in leak.message
    assert leak.items == ("cat/3.png",)


def test_rare_and_few_are_counted(tmp_path: Path) -> None:
    root = fill(tmp_path / "images", {"many": 140, "few": 14, "some": 60})
    rare, ratio = [finding for finding in audited(root) if finding.check == "imbalance"]
    assert rare.evidence == {"counts": {"few": 14}}
    assert "1 class with fewer than 50 images: few (14)" in rare.message
    assert ratio.evidence == {"largest": 140, "smallest": 14}
    assert "10 times" in ratio.message


def test_a_class_that_a_part_lacks_is_named(tmp_path: Path) -> None:
    out = tmp_path / "out"
    root = fill(tmp_path / "images", {"train/cat": 12, "train/dog": 12, "test/cat": 4, "test/dog": 4})
    catalog = read(str(root), out)
    table, header = tables.read(catalog.table)
    in_test = table.filter((table["part"] != "test") | (table["label"] != 1))
    tables.write(catalog.table, in_test, header)
    (missing,) = [one for one in audit(catalog, []) if one.check == "missing_classes"]
    assert (missing.severity, missing.evidence) == ("warning", {"part": "test", "classes": ["dog"]})
    tables.write(catalog.table, table.filter(table["label"] == 0), header)
    (missing,) = [one for one in audit(catalog, []) if one.check == "missing_classes"]
    assert (missing.severity, missing.evidence) == ("error", {"classes": ["dog"]})


def test_tiny_and_long_images_stand_out(sound: Path) -> None:
    picture(1001, 6, 6).save(sound / "dog" / "tiny.png")
    picture(1002, 120, 30).save(sound / "cat" / "long.png")
    tiny, long = [finding for finding in audited(sound) if finding.check == "size_outliers"]
    assert (tiny.items, tiny.evidence["images"]) == (("dog/tiny.png",), 1)
    assert "dog/tiny.png (6 × 6)" in tiny.message
    assert (long.items, long.evidence["longest_aspect"]) == (("cat/long.png",), 4.0)


def test_the_only_file_of_another_format_is_named(sound: Path) -> None:
    picture(500).save(sound / "dog" / "not_found.gif")
    finding = only(audited(sound), "rare_format")
    assert (finding.severity, finding.items) == ("info", ("dog/not_found.gif",))


def test_an_extension_that_lies_is_named_with_the_content(sound: Path) -> None:
    picture(500).save(sound / "dog" / "a.jpg", format="PNG")
    picture(501).save(sound / "dog" / "b.JPEG", quality=95)
    picture(502).save(sound / "dog" / "c.png", format="BMP")
    finding = only(audited(sound), "wrong_extension")
    assert finding.items == ("dog/a.jpg", "dog/c.png")
    assert "dog/a.jpg (PNG), dog/c.png (BMP)" in finding.message


def test_what_had_to_be_converted_is_told_by_kind(sound: Path) -> None:
    picture(500).convert("CMYK").save(sound / "dog" / "cmyk.jpg", quality=95)
    Image.fromarray(np.asarray(picture(501).convert("L"), np.uint16) << 8).save(sound / "dog" / "sixteen.png")
    clear = picture(502)
    clear.putalpha(200)
    clear.save(sound / "dog" / "alpha.png")
    turned = picture(503)
    turned.getexif()[0x0112] = 6
    turned.save(sound / "dog" / "turned.jpg", exif=turned.getexif(), quality=95)
    picture(504).save(sound / "dog" / "moving.gif", save_all=True, append_images=[picture(505)])
    found = {one.evidence["kind"]: one for one in audited(sound) if one.check == "converted"}
    items = {kind: finding.items for kind, finding in found.items()}
    assert items == {
        "cmyk": ("dog/cmyk.jpg",),
        "16-bit": ("dog/sixteen.png",),
        "alpha": ("dog/alpha.png",),
        "exif-rotated": ("dog/turned.jpg",),
        "animated": ("dog/moving.gif",),
    }
    assert {one.severity for one in found.values()} == {"info"}


PLANTED = {
    "dark": (lambda image: changed(image, 0.25), lambda image: changed(image, 0.5)),
    "bright": (lambda image: changed(image, 0.2, 204), lambda image: changed(image, 0.6, 100)),
    "low_contrast": (lambda image: changed(image, 0.15, 110), lambda image: changed(image, 0.5, 64)),
    "blurry": (
        lambda image: image.filter(ImageFilter.GaussianBlur(2)),
        lambda image: image.filter(ImageFilter.GaussianBlur(0.3)),
    ),
}


@pytest.mark.parametrize("check", PLANTED)
def test_what_is_wrong_with_the_light_is_found_and_what_is_only_unusual_is_not(check: str, tmp_path: Path) -> None:
    spoilt, unusual = PLANTED[check]
    root = fill(tmp_path / "images", {"cat": 50, "dog": 50}, side=48)
    for number in range(6):
        spoilt(picture(800 + number, 48, 48)).save(root / "dog" / f"spoilt{number}.png")
        unusual(picture(900 + number, 48, 48)).save(root / "cat" / f"unusual{number}.png")
    findings = [one for one in audited(root, with_split=False) if one.severity != "info"]
    finding = only(findings, check)
    assert {one.check for one in findings} == {check}
    assert sorted(finding.items) == [f"dog/spoilt{number}.png" for number in range(6)]
    assert (finding.decision, finding.severity) == ("review", "warning")
    assert list(finding.scores) == sorted(finding.scores)


def test_blank_images_are_blank_and_nothing_else(sound: Path) -> None:
    Image.new("RGB", (24, 24), (255, 255, 255)).save(sound / "cat" / "white.png")
    Image.new("RGB", (24, 24), (3, 3, 3)).save(sound / "dog" / "black.jpg")
    findings = audited(sound, with_split=False)
    assert {one.check for one in findings if one.severity != "info"} == {"blank"}
    assert sorted(only(findings, "blank").items) == ["cat/white.png", "dog/black.jpg"]
    assert only(findings, "blank").decision == "drop"


def test_a_dot_on_white_is_not_blank(sound: Path) -> None:
    dot = Image.new("RGB", (24, 24), "white")
    dot.putpixel((12, 12), (0, 0, 0))
    dot.save(sound / "cat" / "dot.png")
    assert "blank" not in {one.check for one in audited(sound, with_split=False)}


def test_where_all_images_are_dark_none_stands_out(tmp_path: Path) -> None:
    root = fill(tmp_path / "images", {"cat": 50, "dog": 50})
    for path in root.glob("*/*.png"):
        changed(Image.open(path), 0.3).save(path)
    finding = only(audited(root), "dark")
    assert (finding.severity, finding.items, finding.decision) == ("info", (), None)
    assert finding.message.startswith("100 % of the images are dark")


def test_black_strokes_on_white_paper_are_neither_bright_nor_blank(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(100):
        page = Image.new("L", (56, 56), "white")
        ImageDraw.Draw(page).line([tuple(point) for point in rng.integers(8, 48, (4, 2)).tolist()], "black", 2)
        place = tmp_path / "images" / str(number % 2)
        place.mkdir(parents=True, exist_ok=True)
        page.save(place / f"{number}.png")
    found = {finding.check for finding in audited(tmp_path / "images")}
    assert found.isdisjoint({"bright", "dark", "low_contrast", "blank", "blurry"})


def test_findings_of_reading_are_passed_on_and_the_worst_come_first(sound: Path) -> None:
    (sound / "notes.txt").touch()
    picture(3).save(sound / "dog" / "mistaken.png")
    Image.fromarray(np.asarray(picture(700).convert("L"), np.uint16) << 8).save(sound / "dog" / "sixteen.png")
    findings = audited(sound)
    assert [finding.severity for finding in findings] == ["error", "warning", "info", "info"]
    assert {finding.check for finding in findings if finding.severity == "info"} == {"converted", "ignored"}


def test_findings_about_something_say_what_to_do(sound: Path) -> None:
    picture(3).save(sound / "dog" / "mistaken.png")
    picture(1001, 6, 6).save(sound / "dog" / "tiny.png")
    for finding in audited(sound, with_split=False):
        assert finding.hint
        assert finding.evidence["images"] == len(finding.items) > 0
        assert finding.check in registry.data_checks.names()


def test_a_check_whose_package_is_missing_is_named_and_no_error(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = read(str(sound), sound.parent / "out")
    monkeypatch.setattr(dark.Dark, "requires", ("sklearn", "nowhere_to_be_found"))
    finding = only(audit(catalog, []), "dark")
    assert (finding.severity, finding.evidence) == ("info", {"missing": ["nowhere_to_be_found"]})
    assert finding.hint and finding.hint.startswith("pip install")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "flowers5",
            {("conflicting_labels", "error", 2), ("duplicates", "warning", 3), ("size_outliers", "warning", 2)},
        ),
        ("hymenoptera", {("rare_format", "info", 1)}),
    ],
)
def test_what_is_known_to_be_wrong_with_real_sets(
    tmp_path: Path, name: str, expected: set[tuple[str, str, int]]
) -> None:
    if not (SHARED / f"{name}.tar").exists():
        pytest.skip(f"needs ../shared/data/{name}.tar, which is not here")
    with tarfile.open(SHARED / f"{name}.tar") as tar:
        tar.extractall(tmp_path, filter="data")
    findings = audited(tmp_path / name)
    assert expected <= {(finding.check, finding.severity, len(finding.items)) for finding in findings}
