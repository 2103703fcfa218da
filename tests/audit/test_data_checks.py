"""What the audit says of images that are wrong in a known way, and that it is silent about sound ones."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
from PIL import Image

from torchstone.audit import audit
from torchstone.core import registry
from torchstone.core.values import Finding
from torchstone.data.catalog import read
from torchstone.data.findings import load
from torchstone.data.split import split

SHARED = Path(__file__).parents[2].parent / "shared" / "data"

PHOTO = Image.open(Path(sklearn.datasets.__file__).parent / "images" / "china.jpg").convert("RGB")

Place = Callable[[str], Path]


def piece(number: int, width: int = 24, height: int = 24) -> Image.Image:
    """Another piece of the photo for each number."""
    left, top = number * 5 % (640 - width), number * 11 % (427 - height)
    return PHOTO.crop((left, top, left + width, top + height))


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """Two classes of 60 different images."""
    root = tmp_path / "images"
    fill(root, {"cat": 60, "dog": 60})
    return root


def fill(root: Path, counts: dict[str, int], start: int = 0) -> None:
    number = start
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            piece(number).save(root / name / f"{index}.png")
            number += 1


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


def test_digits_are_sound(tmp_path: Path) -> None:
    catalog = read("digits", tmp_path)
    assert audit(catalog, load(tmp_path), split(catalog, tmp_path, seed=0)) == []


def test_unreadable_files_are_summed_up_in_one_finding(sound: Path) -> None:
    for index in range(5):
        (sound / "cat" / f"bad{index}.jpg").write_bytes(b"nonsense")
    finding = only(audited(sound), "unreadable")
    assert finding.message.startswith("5 images (4.0 %) left out as unusable: cat/bad0.jpg (not an image")
    assert finding.message.endswith("and 2 more")
    assert len(finding.items) == 5
    assert set(finding.evidence["reasons"]) == set(finding.items)


def test_duplicates_are_found_whatever_their_encoding(sound: Path) -> None:
    piece(3).save(sound / "cat" / "copy.bmp")
    piece(3).save(sound / "cat" / "copy.tiff")
    finding = only(audited(sound), "duplicates")
    assert finding.evidence == {"copies": 2, "pictures": 1}
    assert finding.items == ("cat/3.png", "cat/copy.bmp", "cat/copy.tiff")
    assert "2 images (1.6 %)" in finding.message


def test_a_picture_under_two_labels_is_an_error(sound: Path) -> None:
    piece(3).save(sound / "dog" / "mistaken.png")
    findings = audited(sound)
    assert findings[0].check == "conflicting_labels"
    assert findings[0].severity == "error"
    assert "cat/3.png (cat) = dog/mistaken.png (dog)" in findings[0].message
    piece(4).save(sound / "cat" / "copy.png")  # a mere duplicate is no conflict
    assert only(audited(sound), "conflicting_labels").evidence == {"pictures": 1, "images": 2}


def test_leaks_between_the_sources_own_parts_are_errors_and_mended_by_the_split(tmp_path: Path) -> None:
    root = tmp_path / "images"
    fill(root, {"train/cat": 60, "train/dog": 60, "test/cat": 10, "test/dog": 10})
    piece(0).save(root / "test" / "dog" / "leak.png")  # the number 0 is the first cat of train
    findings = audited(root)
    leak = only(findings, "leaks")
    assert leak.severity == "error"
    assert leak.evidence == {"parts": ["train", "test"], "pictures": 1}
    assert "train and test of the source's own parts" in leak.message
    assert only(findings, "split").evidence["images"] == 1


def test_a_leak_in_a_split_made_by_hand_is_found(sound: Path) -> None:
    from torchstone.core import tables

    piece(3).save(sound / "cat" / "copy.png")
    out = sound.parent / "out"
    catalog = read(str(sound), out)
    parts = split(catalog, out, seed=0)
    table, header = tables.read(parts.table)
    items = table["item"].to_list()
    mixed = ["test" if item == "cat/copy.png" else "train" for item in items]
    tables.write(parts.table, tables.frame({"item": items, "part": mixed}), header)
    leak = only(audit(catalog, load(out), parts), "leaks")
    assert "train and test of the split" in leak.message


def test_rare_and_few_are_counted(tmp_path: Path) -> None:
    root = tmp_path / "images"
    fill(root, {"many": 140, "few": 14, "some": 60})
    rare, ratio = [finding for finding in audited(root) if finding.check == "imbalance"]
    assert rare.evidence == {"counts": {"few": 14}}
    assert "1 class with fewer than 50 images: few (14)" in rare.message
    assert ratio.evidence == {"largest": 140, "smallest": 14}
    assert "10 times" in ratio.message


def test_tiny_and_long_images_stand_out(sound: Path) -> None:
    piece(1, 6, 6).save(sound / "dog" / "tiny.png")
    piece(2, 120, 30).save(sound / "cat" / "long.png")
    tiny, long = [finding for finding in audited(sound) if finding.check == "size_outliers"]
    assert (tiny.items, tiny.evidence["images"]) == (("dog/tiny.png",), 1)
    assert "dog/tiny.png (6 × 6)" in tiny.message
    assert (long.items, long.evidence["longest_aspect"]) == (("cat/long.png",), 4.0)


def test_the_only_file_of_another_format_is_named(sound: Path) -> None:
    piece(500).save(sound / "dog" / "not_found.gif")
    finding = only(audited(sound), "rare_format")
    assert (finding.severity, finding.items) == ("info", ("dog/not_found.gif",))


def test_findings_of_reading_are_passed_on_and_the_worst_come_first(sound: Path) -> None:
    (sound / "notes.txt").touch()
    piece(3).save(sound / "dog" / "mistaken.png")
    Image.fromarray(np.full((24, 24), 40_000, np.uint16)).save(sound / "dog" / "sixteen.png")
    findings = audited(sound)
    assert [finding.severity for finding in findings] == ["error", "warning", "info", "info"]
    assert {finding.check for finding in findings if finding.severity == "info"} == {"converted", "ignored"}


def test_findings_about_something_say_what_to_do(sound: Path) -> None:
    piece(3).save(sound / "dog" / "mistaken.png")
    piece(1, 6, 6).save(sound / "dog" / "tiny.png")
    for finding in audited(sound, with_split=False):
        assert finding.hint
        assert finding.evidence
        assert finding.check in registry.data_checks.names()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("flowers5", {("conflicting_labels", 2), ("duplicates", 6), ("size_outliers", 2)}),
        ("hymenoptera", {("rare_format", 1)}),
    ],
)
def test_what_is_known_to_be_wrong_with_real_sets(tmp_path: Path, name: str, expected: set[tuple[str, int]]) -> None:
    if not (SHARED / f"{name}.tar").exists():
        pytest.skip(f"needs ../shared/data/{name}.tar, which is not here")
    with tarfile.open(SHARED / f"{name}.tar") as tar:
        tar.extractall(tmp_path, filter="data")
    findings = audited(tmp_path / name)
    assert {(finding.check, len(finding.items)) for finding in findings} == expected
