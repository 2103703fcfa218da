"""The four parts: the same pixels never in two of them, classes shared out evenly, the source's own parts respected."""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from torchstone.core import files, tables
from torchstone.core.errors import ArtifactError, ConfigError, DataError
from torchstone.core.values import PARTS, Catalog, Finding, Part, Split
from torchstone.data import findings
from torchstone.data.catalog import fingerprint, read
from torchstone.data.split import By, cut, goes_on_from, items_of, split
from torchstone.data.units import connected

Row = tuple[str, int, str | None, str | None]
"""Picture, label, the source's part, group."""

BY_HASH: dict[str, Any] = {"by": "hash", "test_fraction": 0.3, "val_fraction": 0.3, "calib_fraction": 0.3}
"""Fractions at which 120 images of a class leave no part without one."""


def catalog_of(
    rows: Sequence[Row],
    place: Path,
    classes: int | None = None,
    *,
    shows: Mapping[str, int] | None = None,
    times: Sequence[str | None] | None = None,
) -> Catalog:
    """A catalog of such images; equal pictures have equal hashes. ``shows``: pictures with other pixels that the
    catalog takes for the same all the same."""
    count = classes or max(label for _, label, _, _ in rows) + 1
    hashes = [sha256_of(picture) for picture, *_ in rows]
    labels = [label for _, label, _, _ in rows]
    number = {sha256: 1_000_000 + index for index, sha256 in enumerate(dict.fromkeys(hashes))}
    names = Counter[str]()
    items = []
    for picture, *_ in rows:
        names[picture] += 1
        items.append(f"{picture}-{names[picture]}.png")
    pictures = [(shows or {}).get(picture, number[sha256]) for (picture, *_), sha256 in zip(rows, hashes, strict=True)]
    table = tables.frame(
        {
            "item": items,
            "path": items,
            "label": np.array(labels, np.int32),
            "sha256": hashes,
            "picture": np.array(pictures, np.int32),
            "group": [group for *_, group in rows],
            "part": [part for _, _, part, _ in rows],
            "time": times or [None] * len(rows),
        },
        schema={"group": str, "part": str, "time": str},
    )
    tables.write(place / "catalog.parquet", table)
    return Catalog(
        root="/data",
        reader="folder",
        classes=tuple(f"class{label}" for label in range(count)),
        images=len(rows),
        fingerprint=fingerprint(hashes, labels),
        table=place / "catalog.parquet",
    )


def sha256_of(picture: str) -> str:
    return hashlib.sha256(picture.encode()).hexdigest()


def different(*counts: int, part: str | None = None, prefix: str = "p") -> list[Row]:
    """That many different pictures for each class."""
    return [
        (f"{prefix}{label}-{index}", label, part, None) for label, count in enumerate(counts) for index in range(count)
    ]


def parts_by_item(value: Split) -> dict[str, Part]:
    return {item: part for part in PARTS for item in items_of(value, part)}


def by_picture(value: Split) -> dict[str, set[str]]:
    """Picture → the parts in which it stands."""
    found: dict[str, set[str]] = {}
    for item, part in parts_by_item(value).items():
        found.setdefault(item.rsplit("-", 1)[0], set()).add(part)
    return found


def split_findings(place: Path) -> list[Finding]:
    return [finding for finding in findings.load(place) if finding.check == "split"]


rows_with_copies = st.lists(
    st.tuples(
        st.integers(0, 25).map("q{}".format),
        st.integers(0, 1),
        st.sampled_from([None, "train", "val", "test"]),
        st.sampled_from([None, None, None, "g", "h"]),
    ),
    max_size=40,
)


same_pictures = st.dictionaries(st.integers(0, 25).map("q{}".format), st.integers(0, 3), max_size=8)


@settings(max_examples=40)
@given(copies=rows_with_copies, shows=same_pictures, seed=st.integers(0, 2**32), by=st.sampled_from(["quota", "hash"]))
def test_the_same_picture_or_group_never_stands_in_two_parts(
    copies: list[Row], shows: dict[str, int], seed: int, by: By
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        rows = different(*(8, 8) if by == "quota" else (120, 120), prefix="free") + copies
        for part in {part for _, _, part, _ in copies if part in ("val", "test")}:
            rows += different(1, 1, part=part, prefix=f"own-{part}")
        value = split(catalog_of(rows, place, shows=shows), place, seed=seed, **(BY_HASH if by == "hash" else {}))
        items = tables.read(place / "catalog.parquet")[0]
        placed = parts_by_item(value)
        for column in ("sha256", "picture", "group"):
            of_item = dict(items.select("item", column).iter_rows())
            parts_of: dict[object, set[str]] = {}
            for item, part in placed.items():
                parts_of.setdefault(of_item[item], set()).add(part)
            assert all(len(parts) == 1 for key, parts in parts_of.items() if key is not None), column
        dropped = sum(finding.evidence["images"] for finding in split_findings(place))
        assert len(placed) + dropped == len(rows)
        assert sum(value.sizes.values()) == len(placed)
        own_test = [
            item for item, part in zip(items["item"].to_list(), items["part"].to_list(), strict=True) if part == "test"
        ]
        if own_test:
            assert items_of(value, "test") == sorted(own_test)


@settings(max_examples=40)
@given(
    counts=st.lists(st.integers(4, 60), min_size=2, max_size=4),
    test=st.floats(0.05, 0.5),
    val=st.floats(0.05, 0.3),
    calib=st.floats(0.02, 0.3),
    seed=st.integers(0, 1000),
)
def test_each_class_has_its_share_in_each_part_within_one_image(
    counts: list[int], test: float, val: float, calib: float, seed: int
) -> None:
    # Very small classes keep at least one image for each part, whatever the fractions.
    assume(all(count * (1 - test) * (1 - val - calib) >= 2 for count in counts))
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        catalog = catalog_of(different(*counts), place)
        value = split(catalog, place, seed=seed, test_fraction=test, val_fraction=val, calib_fraction=calib)
        wanted = {"test": test, "val": (1 - test) * val, "calib": (1 - test) * calib}
        for label, count in enumerate(counts):
            for part, share in wanted.items():
                got = sum(item.startswith(f"p{label}-") for item in items_of(value, part))  # pyright: ignore
                assert got >= 1
                assert abs(got - share * count) <= 1


@settings(max_examples=20)
@given(rows=st.permutations(different(9, 12) + [("copy", 0, None, None)] * 3), seed=st.integers(0, 5))
def test_neither_order_nor_names_matter(rows: list[Row], seed: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        one, two = Path(directory) / "one", Path(directory) / "two"
        first = split(catalog_of(sorted(rows), one), one, seed=seed)
        second = split(catalog_of(rows, two), two, seed=seed)
        assert by_picture(first) == by_picture(second)
        assert (first.fingerprint, first.test_fingerprint) == (second.fingerprint, second.test_fingerprint)
        assert first.sizes == second.sizes


def test_another_seed_is_another_split(tmp_path: Path) -> None:
    catalog = catalog_of(different(50, 50), tmp_path)
    first, second = (split(catalog, tmp_path / str(seed), seed=seed) for seed in (1, 2))
    assert first.fingerprint != second.fingerprint
    assert first.test_fingerprint != second.test_fingerprint


def test_images_added_later_leave_most_others_where_they_are(tmp_path: Path) -> None:
    first = split(catalog_of(different(200, 200), tmp_path / "1"), tmp_path / "1", seed=0)
    second = split(catalog_of(different(210, 210), tmp_path / "2"), tmp_path / "2", seed=0)
    before, after = parts_by_item(first), parts_by_item(second)
    assert sum(before[item] != after[item] for item in before) < 0.1 * len(before)


@settings(max_examples=30)
@given(
    counts=st.lists(st.integers(12, 50), min_size=2, max_size=3),
    steps=st.lists(st.lists(st.integers(0, 25), min_size=2, max_size=3), min_size=1, max_size=3),
    seed=st.integers(0, 1000),
)
def test_with_its_earlier_split_no_image_moves_and_the_shares_hold(
    counts: list[int], steps: list[list[int]], seed: int
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        value = split(catalog_of(different(*counts), place), place, seed=seed)
        for step in steps:
            counts = [count + more for count, more in zip(counts, [*step, 0, 0], strict=False)]
            before = parts_by_item(value)
            value = split(catalog_of(different(*counts), place), place, seed=seed, previous=place / "split.parquet")
            after = parts_by_item(value)
            assert before.items() <= after.items()
            assert len(after) == sum(counts)
            for label, count in enumerate(counts):
                for part, share in (("test", 0.2), ("val", 0.08), ("calib", 0.04)):
                    got = sum(after[item] == part for item in after if item.startswith(f"p{label}-"))
                    assert abs(got - share * count) <= 1 or got == 1


@settings(max_examples=30)
@given(old=rows_with_copies, new=rows_with_copies, shows=same_pictures, seed=st.integers(0, 1000))
def test_with_its_earlier_split_an_image_stays_or_is_dropped(
    old: list[Row], new: list[Row], shows: dict[str, int], seed: int
) -> None:
    """Whatever comes: copies, groups that grow together, pictures that are newly found equal."""
    unparted = [[(picture, label, None, group) for picture, label, _, group in rows] for rows in (old, new)]
    base = different(8, 8, prefix="free") + unparted[0]
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        before = parts_by_item(split(catalog_of(base, place), place, seed=seed))
        catalog = catalog_of(base + unparted[1], place, shows=shows)
        try:
            value = split(catalog, place, seed=seed, previous=place / "split.parquet")
        except DataError as error:  # what was dropped was a part's only image of a class
            assert "stay where the earlier split has them" in error.message
            return
        after = parts_by_item(value)
        dropped = {item for finding in split_findings(place) for item in finding.items}
        assert dropped.isdisjoint(after)
        for item, part in before.items():
            assert after.get(item, part) == part
            assert (item in after) != (item in dropped)


def test_of_pictures_newly_found_equal_the_weaker_parts_copy_is_dropped(tmp_path: Path) -> None:
    rows = different(60, 60)
    first = split(catalog_of(rows, tmp_path), tmp_path, seed=0)
    of_part = {part: items_of(first, part)[0].rsplit("-", 1)[0] for part in PARTS}
    shows = {of_part["train"]: 1, of_part["val"]: 1, of_part["calib"]: 2, of_part["test"]: 2}
    second = split(catalog_of(rows, tmp_path, shows=shows), tmp_path, seed=0, previous=tmp_path / "split.parquet")
    assert items_of(second, "test") == items_of(first, "test")
    assert items_of(second, "val") == items_of(first, "val")
    assert second.test_fingerprint == first.test_fingerprint
    weaker, other, went_on = split_findings(tmp_path)
    assert {(found.evidence["from"], found.evidence["also_in"]) for found in (weaker, other)} == {
        ("train", "val"),
        ("calib", "test"),
    }
    assert {*weaker.items, *other.items} == {f"{of_part['train']}-1.png", f"{of_part['calib']}-1.png"}
    assert went_on.severity == "info"
    assert went_on.evidence["kept"] == len(rows) - 2


def test_a_part_that_loses_its_only_image_of_a_class_is_refused(tmp_path: Path) -> None:
    rows = different(30, 30)
    first = split(catalog_of(rows, tmp_path), tmp_path, seed=0)
    shows = {items_of(first, part)[0].rsplit("-", 1)[0]: 1 for part in ("calib", "test")}
    with pytest.raises(DataError, match=r"no image of class 'class0' for calib .* lacks 1 image") as caught:
        split(catalog_of(rows, tmp_path, shows=shows), tmp_path, seed=0, previous=tmp_path / "split.parquet")
    assert "anew" in (caught.value.hint or "")
    split(catalog_of(different(31, 30), tmp_path, shows=shows), tmp_path, seed=0, previous=tmp_path / "split.parquet")


def test_a_copy_that_comes_later_joins_the_part_of_the_first(tmp_path: Path) -> None:
    rows = different(30, 30)
    before = parts_by_item(split(catalog_of(rows, tmp_path), tmp_path, seed=0))
    copies = [(picture, label, None, None) for picture, label, _, _ in rows]
    value = split(catalog_of(rows + copies, tmp_path), tmp_path, seed=0, previous=tmp_path / "split.parquet")
    assert parts_by_item(value) == {
        **before,
        **{item.replace("-1.png", "-2.png"): part for item, part in before.items()},
    }


@settings(max_examples=30)
@given(old=rows_with_copies, shows=same_pictures, seed=st.integers(0, 1000), by=st.sampled_from(["quota", "hash"]))
def test_splitting_unchanged_data_again_and_again_changes_nothing(
    old: list[Row], shows: dict[str, int], seed: int, by: By
) -> None:
    """Also where pictures were newly found equal in between, so that some were dropped."""
    rows = different(*(9, 9) if by == "quota" else (120, 120), prefix="free") + [
        (picture, label, None, group) for picture, label, _, group in old
    ]
    options = BY_HASH if by == "hash" else {}
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        split(catalog_of(rows, place), place, seed=seed, **options)
        catalog = catalog_of(rows, place, shows=shows)
        previous = place / "split.parquet"
        try:
            first = split(catalog, place, seed=seed, previous=previous, **options)
        except DataError:  # what was dropped was a part's only image of a class
            return
        before = tables.read(first.table)[0]
        for _ in range(2):
            again = split(catalog, place, seed=seed, previous=previous, **options)
            assert tables.read(again.table)[0].equals(before)
            assert (again.fingerprint, again.test_fingerprint) == (first.fingerprint, first.test_fingerprint)


def test_what_was_left_out_does_not_come_back(tmp_path: Path) -> None:
    """Not even when the image for whose sake it was left out is gone."""
    rows = different(60, 60)
    first = split(catalog_of(rows, tmp_path), tmp_path, seed=0)
    train, test = (items_of(first, part)[0].rsplit("-", 1)[0] for part in ("train", "test"))
    previous = tmp_path / "split.parquet"
    split(catalog_of(rows, tmp_path, shows={train: 1, test: 1}), tmp_path, seed=0, previous=previous)
    assert dict(tables.read(previous)[0].select("item", "part").iter_rows())[f"{train}-1.png"] is None
    without = [row for row in rows if row[0] != test]
    value = split(catalog_of(without, tmp_path), tmp_path, seed=0, previous=previous)
    assert f"{train}-1.png" not in parts_by_item(value)
    still, _ = split_findings(tmp_path)
    assert (still.items, still.evidence) == ((f"{train}-1.png",), {"images": 1})
    assert "anew" in (still.hint or "")


def test_a_split_knows_the_tests_that_it_grew_out_of(tmp_path: Path) -> None:
    values = []
    for step, count in enumerate((50, 60, 60, 80)):
        previous = tmp_path / "split.parquet" if step else None
        values.append(split(catalog_of(different(count, 50), tmp_path), tmp_path, seed=0, previous=previous))
    prints = [value.test_fingerprint for value in values]
    assert [value.earlier_tests for value in values] == [
        (),
        (prints[0],),
        (prints[0], prints[1]),
        (prints[0], prints[1]),
    ]


def test_an_earlier_split_of_other_options_is_not_gone_on_from(tmp_path: Path) -> None:
    split(catalog_of(different(20, 20), tmp_path), tmp_path, seed=1)
    assert goes_on_from(tmp_path, seed=1, by="quota", test_fraction=0.2) == tmp_path / "split.parquet"
    assert goes_on_from(tmp_path, seed=2, by="quota", test_fraction=0.2) is None
    assert goes_on_from(tmp_path, seed=1, by="hash", test_fraction=0.2) is None
    assert goes_on_from(tmp_path, seed=1, by="quota", test_fraction=0.3) is None
    assert goes_on_from(tmp_path / "nowhere", seed=1, by="quota", test_fraction=0.2) is None


def test_a_split_that_went_on_from_the_named_one_comes_before_it(tmp_path: Path) -> None:
    """A configuration names the same earlier split for ever, while the data grow: what came since must stay, too."""
    options: dict[str, Any] = {"seed": 1, "by": "quota", "test_fraction": 0.2}
    old, own = tmp_path / "old", tmp_path / "own"
    named = split(catalog_of(different(20, 20), old), old, seed=0).table
    assert goes_on_from(own, named=named, **options) == named
    for count in (25, 30, 35):
        start = goes_on_from(own, named=named, **options)
        before = parts_by_item(split(catalog_of(different(count, 20), own), own, seed=1, previous=start))
        assert goes_on_from(own, named=named, **options) == own / "split.parquet"
        after = split(catalog_of(different(count + 5, 20), own), own, seed=1, previous=own / "split.parquet")
        assert before.items() <= parts_by_item(after).items()
    other = tmp_path / "other"
    another = split(catalog_of(different(20, 20), other), other, seed=3).table
    assert goes_on_from(own, named=another, **options) == another


def test_a_table_that_is_no_split_is_refused_as_the_earlier_one(tmp_path: Path) -> None:
    catalog = catalog_of(different(20, 20), tmp_path)
    with pytest.raises(ArtifactError, match="gives no image a part"):
        split(catalog, tmp_path, seed=0, previous=tmp_path / "catalog.parquet")
    tables.write(tmp_path / "other.parquet", tables.frame({"item": ["a"], "part": ["test"]}))
    with pytest.raises(ArtifactError, match="is not a split"):
        split(catalog, tmp_path, seed=0, previous=tmp_path / "other.parquet")
    with pytest.raises(ArtifactError, match="does not exist"):
        split(catalog, tmp_path, seed=0, previous=tmp_path / "split.parquet")


def test_a_part_that_the_source_brings_later_is_the_sources(tmp_path: Path) -> None:
    rows = different(30, 30)
    before = parts_by_item(split(catalog_of(rows, tmp_path), tmp_path, seed=0))
    parted = [(picture, label, "train", None) for picture, label, _, _ in rows] + different(
        4, 4, part="test", prefix="t"
    )
    value = split(catalog_of(parted, tmp_path), tmp_path, seed=0, previous=tmp_path / "split.parquet")
    assert {item[0] for item in items_of(value, "test")} == {"t"}
    after = parts_by_item(value)
    assert all(after[item] == part for item, part in before.items() if part != "test")


@settings(max_examples=30)
@given(copies=rows_with_copies, drawn=st.data(), seed=st.integers(0, 1000))
def test_by_hash_an_images_part_is_the_same_in_any_company(copies: list[Row], drawn: st.DataObject, seed: int) -> None:
    rows = [(picture, label, None, None) for picture, label, _, _ in copies]
    some = drawn.draw(st.lists(st.sampled_from(rows), max_size=len(rows))) if rows else []
    base = different(120, 120, prefix="free")
    with tempfile.TemporaryDirectory() as directory:
        one, two = Path(directory) / "one", Path(directory) / "two"
        alone = by_picture(split(catalog_of(base + rows, one), one, seed=seed, **BY_HASH))
        others = some + different(250, 130, prefix="free")
        in_company = by_picture(split(catalog_of(others, two), two, seed=seed, **BY_HASH))
        assert all(alone[picture] == in_company[picture] for picture in alone.keys() & in_company.keys())


def test_by_hash_a_group_stays_where_it_is_when_it_grows(tmp_path: Path) -> None:
    rows = different(200, 200) + [(f"g{index}", 0, None, f"patient{index % 20}") for index in range(40)]
    more = [(f"h{index}", 1, None, f"patient{index % 20}") for index in range(200)]
    before = parts_by_item(split(catalog_of(rows, tmp_path), tmp_path, seed=0, by="hash"))
    after = parts_by_item(split(catalog_of(rows + more, tmp_path), tmp_path, seed=0, by="hash"))
    assert before.items() <= after.items()


def test_by_hash_the_shares_hold_within_sampling_error(tmp_path: Path) -> None:
    images = 4000
    value = split(catalog_of(different(images // 2, images // 2), tmp_path), tmp_path, seed=0, by="hash")
    for part, share in zip(PARTS, (0.68, 0.08, 0.04, 0.2), strict=True):
        error = 4 * (images * share * (1 - share)) ** 0.5
        assert abs(value.sizes[part] - share * images) < error


def test_by_hash_a_class_that_misses_a_part_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"class 'class1': it lacks about \d+ image") as caught:
        split(catalog_of(different(200, 4), tmp_path), tmp_path, seed=0, by="hash")
    assert "quota" in (caught.value.hint or "")


def days(count: int, per_day: int = 1) -> list[str | None]:
    return [f"2026-01-{1 + index // per_day:02}" for index in range(count)]


def test_by_time_the_newest_are_test_and_nothing_in_train_is_newer(tmp_path: Path) -> None:
    rows = [(f"p{index % 2}-{index}", index % 2, None, None) for index in range(100)]
    when = days(100, per_day=4)
    value = split(catalog_of(rows, tmp_path, times=when), tmp_path, seed=0, by="time")
    time_of = {f"{picture}-1.png": time for (picture, *_), time in zip(rows, when, strict=True)}
    spans = {part: sorted(str(time_of[item]) for item in items_of(value, part)) for part in PARTS}
    assert max(spans["train"] + spans["calib"]) < spans["val"][0]
    assert spans["val"][-1] < spans["test"][0]
    assert value.sizes == {"train": 68, "val": 8, "calib": 4, "test": 20}


def test_by_time_a_group_is_as_new_as_its_newest_image(tmp_path: Path) -> None:
    rows = [(f"p{index}", index % 2, None, "g" if index in (0, 1, 98, 99) else None) for index in range(100)]
    value = split(catalog_of(rows, tmp_path, times=days(100, per_day=4)), tmp_path, seed=0, by="time")
    assert {"p0-1.png", "p1-1.png", "p98-1.png", "p99-1.png"} <= set(items_of(value, "test"))


def test_by_time_zones_and_short_forms_are_understood(tmp_path: Path) -> None:
    """1 p.m. in Berlin is before 1 p.m. in New York; a year is its first day."""
    when = ["2019", "2020-05"] * 20 + ["2026-03-01T13:00:00+01:00"] * 8 + ["2026-03-01T13:00:00-05:00"] * 12
    rows = [(f"p{index}", index // 2 % 2, None, None) for index in range(60)]
    value = split(catalog_of(rows, tmp_path, times=when), tmp_path, seed=0, by="time")
    assert set(items_of(value, "test")) == {f"p{index}-1.png" for index in range(48, 60)}
    assert set(items_of(value, "val")) == {f"p{index}-1.png" for index in range(40, 48)}


def test_what_cannot_be_split_by_time_is_refused(tmp_path: Path) -> None:
    rows = [(f"p{index}", index % 2, None, None) for index in range(100)]

    def refused(times: list[str | None], match: str) -> None:
        with pytest.raises(DataError, match=match) as caught:
            split(catalog_of(rows, tmp_path, times=times), tmp_path / "out", seed=0, by="time")
        assert caught.value.hint

    refused([None, None, *days(98, 4)], "2 images lack it")
    refused(["last summer", *days(99, 4)], "'p0-1.png' is 'last summer'")
    refused(["2026-01-01", *["2026-01-02"] * 99], "2 different times, .* needs 3: 1 further time missing")
    late = sorted(days(100, 4), key=str)
    with pytest.raises(DataError, match=r"test gets none of the 50 images of class 'class0'"):
        sorted_rows = [(f"p{index}", index // 50, None, None) for index in range(99, -1, -1)]
        split(catalog_of(sorted_rows, tmp_path, times=late[::-1]), tmp_path, seed=0, by="time")
    with pytest.raises(ConfigError, match="cannot keep an earlier one"):
        split(catalog_of(rows, tmp_path, times=days(100, 4)), tmp_path, seed=0, by="time", previous=tmp_path / "x")


@settings(max_examples=30)
@given(
    sizes=st.lists(st.lists(st.integers(1, 8), min_size=5, max_size=15), min_size=2, max_size=3),
    seed=st.integers(0, 99),
)
def test_with_groups_each_class_has_its_share_within_one_group(sizes: list[list[int]], seed: int) -> None:
    rows = [
        (f"p{label}-{group}-{index}", label, None, f"g{label}-{group}")
        for label, groups in enumerate(sizes)
        for group, size in enumerate(groups)
        for index in range(size)
    ]
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        placed = parts_by_item(split(catalog_of(rows, place), place, seed=seed))
    for label, groups in enumerate(sizes):
        for part, share in (("test", 0.2), ("val", 0.08), ("calib", 0.04)):
            got = sum(placed[item] == part for item in placed if item.startswith(f"p{label}-"))
            # … or because every later part was left one group
            assert got >= 1
            assert got - share * sum(groups) <= max(groups)


@settings(max_examples=30)
@given(
    patients=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3), st.integers(0, 2)), min_size=30, max_size=60),
    seed=st.integers(0, 99),
)
def test_patients_with_images_of_several_classes_are_stratified_by_the_rarest(
    patients: list[tuple[int, int, int]], seed: int
) -> None:
    """What is assigned by the class that most of a patient's images have leaves rare classes out of whole parts."""
    with_class = [sum(counts[label] > 0 for counts in patients) for label in range(3)]
    assume(min(with_class) >= 10)
    rows = [
        (f"c{label}-{patient}-{index}", label, None, f"patient{patient}")
        for patient, counts in enumerate(patients)
        for label, count in enumerate(counts)
        for index in range(count)
    ]
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        placed = parts_by_item(split(catalog_of(rows, place), place, seed=seed))
    for label in range(3):
        of_class = [part for item, part in placed.items() if item.startswith(f"c{label}-")]
        assert set(of_class) == set(PARTS)
    rarest = min(range(3), key=lambda label: with_class[label])
    images = [part for item, part in placed.items() if item.startswith(f"c{rarest}-")]
    largest = max(counts[rarest] for counts in patients)
    assert abs(images.count("test") - 0.2 * len(images)) <= largest


def test_a_class_whose_units_the_rarer_ones_have_placed_stands_in_every_part() -> None:
    """Class 0 has no unit of its own, and those of classes 1 and 2 that come first to test and val have none of it."""
    of_class = {1: range(5), 2: range(5, 10), 0: (2, 3, 4, 7, 8, 9)}
    rows = np.array([(unit, label) for label, units in of_class.items() for unit in units])
    pool = cut.pool(
        rows[:, 0], rows[:, 1], part=np.zeros(10, np.int8), draws=np.zeros(10, np.int64), turns=np.arange(10)
    )
    placed = cut.by_quota(pool, {"test": 0.2, "val": 0.1, "calib": 0.1}, 3)
    for units in of_class.values():
        assert {int(placed[unit]) for unit in units} == set(cut.CODE.values())


@given(
    nodes=st.integers(1, 30),
    pairs=st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=40),
)
def test_connected_nodes_are_named_after_the_least(nodes: int, pairs: list[tuple[int, int]]) -> None:
    inside = [(one % nodes, other % nodes) for one, other in pairs]
    ends = np.array(inside, np.intp).reshape(-1, 2)
    expected = list(range(nodes))
    for _ in range(nodes):
        for one, other in inside:
            expected[one] = expected[other] = min(expected[one], expected[other])
    assert connected(nodes, [(ends[:, 0], ends[:, 1])]).tolist() == expected


def test_a_long_chain_is_connected_in_few_rounds() -> None:
    order = np.random.default_rng(0).permutation(100_000)
    assert not connected(100_000, [(order[:-1], order[1:])]).any()


def test_the_default_sizes_of_a_source_without_parts(tmp_path: Path) -> None:
    value = split(catalog_of(different(500, 500), tmp_path), tmp_path, seed=0)
    assert value.sizes == {"train": 680, "val": 80, "calib": 40, "test": 200}
    assert Split.load(tmp_path / "split.json") == value


def test_calibration_is_limited(tmp_path: Path) -> None:
    rows = different(4000, 4000, part="train") + different(100, 100, part="test", prefix="t")
    value = split(catalog_of(rows, tmp_path), tmp_path, seed=0)
    assert value.sizes == {"train": 6900, "val": 800, "calib": 300, "test": 200}


def test_the_sources_own_val_and_test_are_respected(tmp_path: Path) -> None:
    rows = [
        *different(20, 20, part="train"),
        *different(3, 4, part="val", prefix="v"),
        *different(5, 2, part="test", prefix="t"),
    ]
    value = split(catalog_of(rows, tmp_path), tmp_path, seed=0)
    assert value.sizes == {"train": 38, "val": 7, "calib": 2, "test": 7}
    assert {item[0] for item in items_of(value, "val")} == {"v"}
    assert {item[0] for item in items_of(value, "test")} == {"t"}
    assert {item[0] for part in ("train", "calib") for item in items_of(value, part)} == {"p"}


def test_what_stands_in_test_is_dropped_from_train_and_reported_once(tmp_path: Path) -> None:
    rows = [
        *different(20, 20, part="train"),
        *different(5, 5, part="test", prefix="t"),
        ("t0-1", 0, "train", None),
        ("t0-2", 1, "train", None),
        ("t1-1", 1, "test", None),
    ]
    catalog = catalog_of(rows, tmp_path)
    findings.store(tmp_path, [Finding(check="converted", severity="info", message="kept")])
    split(catalog, tmp_path, seed=0)
    value = split(catalog, tmp_path, seed=0)
    assert value.sizes["test"] == 11
    assert sum(value.sizes.values()) == len(rows) - 2
    kept, finding = findings.load(tmp_path)
    assert kept.check == "converted"
    assert finding.severity == "warning"
    assert finding.evidence == {"from": "train", "also_in": "test", "images": 2}
    assert set(finding.items) == {"t0-1-2.png", "t0-2-2.png"}


@pytest.mark.parametrize(("own_test", "needed"), [(False, 4), (True, 3)])
def test_a_class_with_fewer_images_than_parts_is_refused_by_name(tmp_path: Path, own_test: bool, needed: int) -> None:
    train = "train" if own_test else None
    more = different(2, 2, part="test", prefix="t") if own_test else []
    split(catalog_of([*different(9, needed, part=train), *more], tmp_path), tmp_path / "enough", seed=0)
    few = [*different(9, needed - 1, part=train), ("p1-0", 1, train, None), *more]  # a copy is not a further image
    with pytest.raises(
        DataError, match=rf"class 'class1' has {needed - 1} different images .* lacks 1 image"
    ) as caught:
        split(catalog_of(few, tmp_path), tmp_path / "out", seed=0)
    assert caught.value.hint
    assert not (tmp_path / "out").exists()


def test_a_test_part_without_one_of_the_classes_is_refused(tmp_path: Path) -> None:
    rows = different(9, 9, part="train") + different(3, part="test", prefix="t")
    with pytest.raises(DataError, match="own test part has no image of class 'class1'"):
        split(catalog_of(rows, tmp_path), tmp_path, seed=0)


def test_a_large_test_fraction_leaves_one_image_for_each_part(tmp_path: Path) -> None:
    value = split(catalog_of(different(10, 10), tmp_path), tmp_path, seed=0, test_fraction=0.9)
    assert value.sizes == {"train": 2, "val": 2, "calib": 2, "test": 14}


@pytest.mark.parametrize("fractions", [{"test_fraction": 1.0}, {"val_fraction": 0.0}, {"calib_fraction": 0.95}])
def test_impossible_fractions_are_refused(tmp_path: Path, fractions: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        split(catalog_of(different(10, 10), tmp_path), tmp_path, seed=0, **fractions)  # pyright: ignore


def test_the_digits(tmp_path: Path) -> None:
    catalog = read("digits", tmp_path)
    value = split(catalog, tmp_path, seed=0, test_fraction=0.35)
    assert value.sizes["test"] >= 600
    assert sum(value.sizes.values()) == 1797
    # The ledger counts looks by this value: it must be the same on every machine and in every version.
    labels = dict(tables.read(catalog.table)[0].select("item", "label").iter_rows())
    hashes = dict(tables.read(catalog.table)[0].select("item", "sha256").iter_rows())
    pairs = sorted([hashes[item], labels[item]] for item in items_of(value, "test"))
    assert value.test_fingerprint == files.digest(pairs)
