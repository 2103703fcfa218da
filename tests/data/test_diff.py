"""Two versions of a data set: every image told of once, by its pixels."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from torchstone.core import tables
from torchstone.core.errors import ArtifactError
from torchstone.data.diff import KINDS, Difference, Version, compare, version
from torchstone.stages.versions import diff

Row = tuple[str, str, int, str | None]
"""Item, pixels, label, part."""

CLASSES = ("cat", "dog", "owl")


def version_of(rows: Sequence[Row]) -> Version:
    columns = {
        "item": [item for item, *_ in rows],
        "sha256": [pixels for _, pixels, *_ in rows],
        "label": np.array([label for _, _, label, _ in rows], np.int32),
        "part": [part for *_, part in rows],
    }
    return version("v", tables.frame(columns, schema={"item": str, "sha256": str, "part": str}), CLASSES)


def told(found: Difference) -> list[tuple[str, str | None, str | None]]:
    return list(found.rows.select("change", "item_before", "item_after").iter_rows())


BEFORE: list[Row] = [("a", "p1", 0, None), ("b", "p2", 1, None), ("c", "p3", 1, "train")]
CASES: dict[str, tuple[list[Row], list[tuple[str, str | None, str | None]]]] = {
    "nothing": (BEFORE[::-1], []),
    "an image more": ([*BEFORE, ("d", "p4", 2, None)], [("added", None, "d")]),
    "an image less": (BEFORE[:2], [("removed", "c", None)]),
    "another label": ([*BEFORE[:2], ("c", "p3", 0, "train")], [("relabelled", "c", "c")]),
    "another class folder": ([*BEFORE[:2], ("x/c", "p3", 0, "train")], [("relabelled", "c", "x/c")]),
    "other pixels": ([*BEFORE[:2], ("c", "p9", 1, "train")], [("changed", "c", "c")]),
    "other pixels and label": ([*BEFORE[:2], ("c", "p9", 2, "train")], [("changed", "c", "c")]),
    "another name": ([*BEFORE[:2], ("z", "p3", 1, "train")], [("moved", "c", "z")]),
    "another part": ([*BEFORE[:2], ("c", "p3", 1, "test")], [("moved", "c", "c")]),
    "two that change names": (
        [("b", "p1", 0, None), ("a", "p2", 1, None), BEFORE[2]],
        [("moved", "b", "a"), ("moved", "a", "b")],
    ),
    "a new image in the place of one that moved": (
        [("a", "p9", 0, None), ("z", "p1", 0, None), *BEFORE[1:]],
        [("added", None, "a"), ("moved", "a", "z")],
    ),
    "a further copy": ([*BEFORE, ("a2", "p1", 0, None)], [("added", None, "a2")]),
    "everything": ([("q", "p9", 2, None)], [("added", None, "q"), *(("removed", item, None) for item in "abc")]),
}


@pytest.mark.parametrize("case", CASES)
def test_what_became_of_the_images(case: str) -> None:
    after, expected = CASES[case]
    found = compare(version_of(BEFORE), version_of(after))
    assert told(found) == expected
    assert found.counts == {kind: sum(change == kind for change, *_ in expected) for kind in KINDS}


def test_it_says_from_which_class_and_part_to_which() -> None:
    found = compare(version_of(BEFORE), version_of([*BEFORE[:2], ("c", "p3", 0, "test")]))
    assert found.rows.to_dicts() == [
        {
            "change": "relabelled",
            "item_before": "c",
            "item_after": "c",
            "class_before": "dog",
            "class_after": "cat",
            "part_before": "train",
            "part_after": "test",
        }
    ]


rows = st.lists(
    st.tuples(
        st.integers(0, 9).map("i{}".format),
        st.integers(0, 5).map("p{}".format),
        st.integers(0, 2),
        st.sampled_from([None, "train"]),
    ),
    max_size=10,
    unique_by=lambda row: row[0],
)


@settings(max_examples=60)
@given(before=rows, after=rows)
def test_every_image_is_told_of_once_and_the_way_back_is_the_mirror_image(before: list[Row], after: list[Row]) -> None:
    there, back = compare(version_of(before), version_of(after)), compare(version_of(after), version_of(before))
    same = len(before) - sum(item is not None for _, item, _ in told(there))
    for items, side in ((before, "item_before"), (after, "item_after")):
        named = [item for item in there.rows[side].to_list() if item is not None]
        assert len(set(named)) == len(named) == len(items) - same
        assert set(named) <= {item for item, *_ in items}
    mirrored = {"added": "removed", "removed": "added"}
    assert Counter(mirrored.get(change, change) for change, *_ in told(there)) == Counter(
        change for change, *_ in told(back)
    )
    assert (sorted(before) == sorted(after)) == (there.rows.height == 0)  # pyright: ignore[reportArgumentType]
    if Counter(pixels for _, pixels, *_ in before) == Counter(pixels for _, pixels, *_ in after):
        assert {change for change, *_ in told(there)} <= {"moved", "relabelled"}


def test_a_version_without_the_columns_is_refused() -> None:
    with pytest.raises(ArtifactError, match="no column label, sha256"):
        version("x", tables.frame({"item": ["a"]}), CLASSES)


def test_what_a_cleaned_catalog_drops_is_not_in_it() -> None:
    columns = {"item": ["a", "b", "c"], "sha256": ["p", "q", "r"], "label": [0, 1, 1]}
    table = tables.frame({**columns, "decision": ["keep", "drop", None]}, schema={"decision": str})
    assert version("x", table, CLASSES).table["item"].to_list() == ["a", "c"]


def test_two_folders_of_real_images(make_folder: Callable[..., Path], tmp_path: Path, photo: Image.Image) -> None:
    """A saved catalog of the first version is compared without its images."""
    from torchstone.stages.versions import split

    one = make_folder({"ant": 8, "bee": 8})
    two = tmp_path / "two"
    shutil.copytree(one, two)
    (two / "ant/0.png").rename(two / "bee/ant0.png")
    (two / "ant/1.png").unlink()
    (two / "ant/2.png").rename(two / "ant/renamed.png")
    photo.crop((7, 7, 50, 50)).save(two / "ant/3.png")
    photo.crop((9, 9, 60, 60)).save(two / "bee/new.png")
    Image.open(two / "bee/5.png").save(two / "bee/5.png", compress_level=0)  # other bytes, the same pixels
    expected = [
        ("changed", "ant/3.png", "ant/3.png"),
        ("moved", "ant/2.png", "ant/renamed.png"),
        ("relabelled", "ant/0.png", "bee/ant0.png"),
        ("added", None, "bee/new.png"),
        ("removed", "ant/1.png", None),
    ]
    found = diff(str(one), str(two))
    assert told(found) == expected
    assert found.before.fingerprint != found.after.fingerprint
    split(str(one), tmp_path / "saved", seed=0, by="quota", test_fraction=0.2)
    shutil.rmtree(one)
    for saved in (tmp_path / "saved", tmp_path / "saved/catalog.parquet"):
        assert told(diff(str(saved), str(two))) == expected
        assert not diff(str(saved), str(tmp_path / "saved")).rows.height
