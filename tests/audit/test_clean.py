"""What is kept of the findings, and the catalog that is cleaned by them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from made_images import fill, picture
from torchstone.audit import audit, clean
from torchstone.core import tables
from torchstone.core.errors import ArtifactError, DataError
from torchstone.core.values import Catalog, Finding
from torchstone.data import findings as reported
from torchstone.data.catalog import read
from torchstone.data.findings import ITEMS_NAMED


def cleaned(root: Path) -> tuple[Catalog, dict[str, tuple[Any, ...]], Path]:
    """The catalog of a folder; (label, decision, reason) of each item of its cleaned catalog; where that lies."""
    out = root.parent / "out"
    catalog = read(str(root), out / "data")
    clean.store(audit(catalog, reported.load(out / "data")), out)
    made = clean.clean(catalog, out)
    table, _ = tables.read(made.path)
    rows = {row[0]: row[1:] for row in table.select("item", "label", "decision", "reason").iter_rows()}
    assert (made.keep, made.review, made.drop) == tuple(
        sum(row[1] == decision for row in rows.values()) for decision in ("keep", "review", "drop")
    )
    return catalog, rows, made.path


def test_every_image_has_a_decision_and_every_other_one_than_keep_a_reason(tmp_path: Path) -> None:
    root = fill(tmp_path / "images", {"cat": 30, "dog": 30})
    picture(3).save(root / "cat" / "copy.png")
    picture(4).save(root / "dog" / "mistaken.png")
    (root / "cat" / "broken.jpg").write_bytes(b"nonsense")
    (root / "notes.txt").touch()
    picture(99, 200, 30).save(root / "dog" / "long.png")
    _, rows, _ = cleaned(root)
    assert len(rows) == 64
    marked = {item: row for item, row in rows.items() if row[1] != "keep"}
    assert marked == {
        "cat/copy.png": (0, "drop", "duplicates: cat/3.png"),
        "cat/4.png": (0, "drop", "conflicting_labels: dog/mistaken.png"),
        "dog/mistaken.png": (1, "drop", "conflicting_labels: cat/4.png; duplicates: cat/4.png"),
        "cat/broken.jpg": (None, "drop", marked["cat/broken.jpg"][2]),
        "dog/long.png": (1, "review", "size_outliers"),
    }
    assert marked["cat/broken.jpg"][2].startswith("unreadable: not an image")


def test_the_images_and_the_catalog_stay_as_they_were(tmp_path: Path) -> None:
    root = fill(tmp_path / "images", {"cat": 20, "dog": 20})
    picture(3).save(root / "cat" / "copy.png")
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in root.rglob("*.png")}
    catalog, _, _ = cleaned(root)
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in root.rglob("*.png")} == before
    assert len(tables.read(catalog.table)[0]) == 41


def test_a_cleaned_catalog_is_a_source_without_what_was_dropped(tmp_path: Path) -> None:
    root = fill(tmp_path / "images", {"train/cat": 20, "train/dog": 20, "test/cat": 5, "test/dog": 5})
    picture(0).save(root / "test" / "cat" / "leak.png")
    (root / "train" / "cat" / "broken.jpg").write_bytes(b"nonsense")
    catalog, rows, path = cleaned(root)
    again = read(str(path), tmp_path / "again")
    assert (again.reader, again.classes, again.images) == ("saved", catalog.classes, 50)
    table, _ = tables.read(again.table)
    assert set(table["item"].to_list()) == {item for item, row in rows.items() if row[1] != "drop"}
    assert "train/cat/0.png" not in table["item"].to_list(), "the copy in the test part is the one that is kept"
    assert table["part"].to_list().count("test") == 11
    hashes = dict(zip(*(tables.read(catalog.table)[0][name].to_list() for name in ("item", "sha256")), strict=True))
    assert dict(zip(table["item"].to_list(), table["sha256"].to_list(), strict=True)).items() <= hashes.items()
    left = {finding.check for finding in audit(again, reported.load(tmp_path / "again"))}
    assert left.isdisjoint({"leaks", "duplicates", "conflicting_labels", "unreadable"})


def test_a_class_is_never_emptied(tmp_path: Path) -> None:
    root = fill(tmp_path / "images", {"cat": 20})
    (root / "nothing").mkdir()
    for number in range(3):
        Image.new("RGB", (24, 24), (number, 0, 0)).save(root / "nothing" / f"{number}.png")
    _, rows, path = cleaned(root)
    assert {row[1] for item, row in rows.items() if item.startswith("nothing")} == {"review"}
    assert all(clean.LAST in row[2] for item, row in rows.items() if item.startswith("nothing"))
    assert read(str(path), tmp_path / "again").classes == ("cat", "nothing")


def test_stored_findings_name_the_first_items_and_the_marks_name_all(tmp_path: Path) -> None:
    items = tuple(f"{number}.jpg" for number in range(100))
    many = Finding(
        check="unreadable", severity="warning", message="many", items=items, decision="drop",
        scores=tuple(map(float, range(100))), suggested=tuple(map(str, range(100))),
        groups=tuple(items[start : start + 50] for start in (0, 50)) * 30,
        evidence={"images": 100, "reasons": {item: f"for {item}" for item in items}},
    )  # fmt: skip
    few = Finding(check="imbalance", severity="info", message="few")
    clean.store([many, few], tmp_path)
    first, second = reported.load(tmp_path)
    assert second == few
    assert first.items == items[:ITEMS_NAMED]
    assert [len(first.scores), len(first.suggested), len(first.groups)] == [ITEMS_NAMED] * 3
    assert {len(group) for group in first.groups} == {ITEMS_NAMED}
    assert first.evidence["images"] == 100
    assert set(first.evidence["reasons"]) == set(first.items)
    table, _ = tables.read(tmp_path / clean.MARKS)
    assert table["item"].to_list() == list(items)
    assert table["reason"].to_list() == [f"unreadable: for {item}" for item in items]
    assert table["score"].to_list() == list(range(100))


def test_findings_without_items_make_an_empty_table(tmp_path: Path) -> None:
    clean.store([], tmp_path)
    table, _ = tables.read(tmp_path / clean.MARKS)
    assert len(table) == 0
    assert "decision" in table.columns


def test_images_that_were_moved_are_a_mistake_that_is_explained(tmp_path: Path) -> None:
    root = fill(tmp_path / "images", {"cat": 10, "dog": 10})
    _, _, path = cleaned(root)
    root.rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="no usable image"):
        read(str(path), tmp_path / "again")


def test_an_edited_catalog_keeps_its_decisions(tmp_path: Path) -> None:
    """polars and pandas lose the header: what is written back is a manifest, with names for classes."""
    root = fill(tmp_path / "images", {"cat": 20, "dog": 20})
    picture(3).save(root / "cat" / "copy.png")
    (root / "cat" / "broken.jpg").write_bytes(b"nonsense")
    catalog, rows, path = cleaned(root)
    table, _ = tables.read(path)
    edited = root / "mine.parquet"
    table.write_parquet(edited)
    again = read(str(edited), tmp_path / "again")
    assert (again.reader, again.classes) == ("manifest", catalog.classes)
    assert again.images == sum(row[1] != "drop" for row in rows.values())


def test_an_edited_catalog_is_not_written_over(tmp_path: Path) -> None:
    root = fill(tmp_path / "images", {"cat": 20, "dog": 20})
    catalog, _, path = cleaned(root)
    clean.clean(catalog, path.parent)  # nobody has touched it
    table, header = tables.read(path)
    decisions = ["drop", *table["decision"].to_list()[1:]]
    tables.write(path, table.with_columns(tables.frame({"decision": decisions})["decision"]), header)
    with pytest.raises(ArtifactError, match="has been edited") as caught:
        clean.clean(catalog, path.parent)
    assert caught.value.hint
