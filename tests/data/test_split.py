"""The four parts: the same pixels never in two of them, classes shared out evenly, the source's own parts respected."""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from torchstone.core import files, tables
from torchstone.core.errors import ConfigError, DataError
from torchstone.core.values import PARTS, Catalog, Finding, Part, Split
from torchstone.data import findings
from torchstone.data.catalog import fingerprint, read
from torchstone.data.split import items_of, split

Row = tuple[str, int, str | None, str | None]
"""Picture, label, the source's part, group."""


def catalog_of(rows: Sequence[Row], place: Path, classes: int | None = None) -> Catalog:
    """A catalog of such images; equal pictures have equal hashes."""
    count = classes or max(label for _, label, _, _ in rows) + 1
    hashes = [hashlib.sha256(picture.encode()).hexdigest() for picture, *_ in rows]
    labels = [label for _, label, _, _ in rows]
    names = Counter[str]()
    items = []
    for picture, *_ in rows:
        names[picture] += 1
        items.append(f"{picture}-{names[picture]}.png")
    table = tables.frame(
        {
            "item": items,
            "path": items,
            "label": np.array(labels, np.int32),
            "sha256": hashes,
            "width": np.full(len(rows), 8, np.int32),
            "height": np.full(len(rows), 8, np.int32),
            "group": [group for *_, group in rows],
            "part": [part for *_, part, _ in rows],
        },
        schema={"group": str, "part": str},
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


@settings(max_examples=60, deadline=None)
@given(copies=rows_with_copies, seed=st.integers(0, 2**32))
def test_the_same_pixels_or_group_never_stand_in_two_parts(copies: list[Row], seed: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        rows = different(8, 8, prefix="free") + copies
        for part in {part for _, _, part, _ in copies if part in ("val", "test")}:
            rows += different(1, 1, part=part, prefix=f"own-{part}")
        value = split(catalog_of(rows, place), place, seed=seed)
        assert all(len(parts) == 1 for parts in by_picture(value).values())
        items = tables.read(place / "catalog.parquet")[0]
        group_of = dict(zip(items["item"].to_list(), items["group"].to_list(), strict=True))
        placed = parts_by_item(value)
        for group in ("g", "h"):
            assert len({part for item, part in placed.items() if group_of[item] == group}) <= 1
        dropped = sum(finding.evidence["images"] for finding in split_findings(place))
        assert len(placed) + dropped == len(rows)
        assert sum(value.sizes.values()) == len(placed)
        own_test = [
            item for item, part in zip(items["item"].to_list(), items["part"].to_list(), strict=True) if part == "test"
        ]
        if own_test:
            assert items_of(value, "test") == sorted(own_test)


@settings(max_examples=60, deadline=None)
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
        value = split(
            catalog, place, seed=seed, test_fraction=test, val_fraction=val, calib_fraction=calib, calib_images=10**6
        )
        wanted = {"test": test, "val": (1 - test) * val, "calib": (1 - test) * calib}
        for label, count in enumerate(counts):
            for part, share in wanted.items():
                got = sum(item.startswith(f"p{label}-") for item in items_of(value, part))  # pyright: ignore
                assert got >= 1
                assert abs(got - share * count) <= 1


@settings(max_examples=25, deadline=None)
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
