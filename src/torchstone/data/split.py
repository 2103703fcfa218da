"""Four parts, held apart by what the images show: pixels that are the same never stand in two of them.

A source's own test part is respected, and its own val part where it has both; everything else is cut from the rest,
class by class. Within a class the images are ordered by a hash of their pixels and the seed, so that the split depends
on neither names nor order, and images that are added later move few of the others.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torchstone.core import files, seeding, tables
from torchstone.core.errors import ConfigError, DataError
from torchstone.core.values import PARTS, Catalog, Finding, Part, Split
from torchstone.data import findings as reported
from torchstone.data.catalog import fingerprint
from torchstone.data.findings import ITEMS_NAMED, count_of, name_a_few

CHECK = "split"
"""The name under which findings of the split are stored."""

HELD_OUT: tuple[Part, ...] = ("test", "val")
"""The parts that a source can bring with it. What stands in two of them belongs to the first."""


@dataclass(frozen=True)
class _Unit:
    """Images that must stay together: the same pixels, or one group."""

    key: str
    """The smallest hash of its pixels."""
    rows: tuple[int, ...]
    owner: Part | None
    """The source's own held-out part that it belongs to."""
    label: int
    """The label of most of its images."""


def split(
    catalog: Catalog,
    out_dir: Path,
    *,
    seed: int,
    test_fraction: float = 0.2,
    val_fraction: float = 0.1,
    calib_fraction: float = 0.05,
    calib_images: int = 300,
) -> Split:
    """Write ``split.parquet`` (item, part) and ``split.json``; what was noticed joins ``findings.json`` in ``out_dir``.

    ``test_fraction`` is of all images and counts only where the source has no test part; the other fractions are of
    the images that are not test. ``calib_images`` limits the calibration part, which gains nothing from more. Every
    part gets at least one image of each class.

    Images of the source's train part whose pixels stand in its test (or val) part, too, are dropped from train: they
    are in no part, and a finding (check ``split``) counts them. Raises a DataError when a class has fewer different
    images than there are parts to cut, a ConfigError for fractions that leave nothing to train on.
    """
    _check_fractions(test_fraction, val_fraction, calib_fraction)
    table, _ = tables.read(catalog.table)
    hashes, labels, items = (table[name].to_list() for name in ("sha256", "label", "item"))
    own: list[str | None] = table["part"].to_list()
    units = _units(hashes, labels, table["group"].to_list(), own)
    parts: list[Part | None] = [None] * len(items)
    for unit in units:
        for row in unit.rows:
            if unit.owner is not None and own[row] == unit.owner:
                parts[row] = unit.owner

    brought: list[Part] = [part for part in HELD_OUT if part in own]
    free = _by_class(units, catalog.classes)
    _check_counts(catalog.classes, free, brought, parts, labels)
    shares = _shares(free, brought, test_fraction, val_fraction, calib_fraction, calib_images)
    for of_class in free:
        for unit, part in _cut(of_class, shares, seed):
            for row in unit.rows:
                parts[row] = part
    reported.replace(out_dir, CHECK, _dropped(items, own, parts, units))
    return _write(out_dir, seed, items, parts, list(zip(hashes, labels, strict=True)))


def items_of(split: Split, part: Part) -> list[str]:
    """The items of one part, sorted."""
    table, _ = tables.read(split.table)
    return [item for item, its_part in table.iter_rows() if its_part == part]


def _units(
    hashes: Sequence[str], labels: Sequence[int], groups: Sequence[str | None], own: Sequence[str | None]
) -> list[_Unit]:
    """Rows that share pixels or a group, directly or through others, as one unit; sorted by key."""
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def root(node: tuple[str, str]) -> tuple[str, str]:
        while (above := parent.setdefault(node, node)) != node:
            parent[node] = parent[above]
            node = above
        return node

    for sha256, group in zip(hashes, groups, strict=True):
        if group is not None:
            parent[root(("group", group))] = root(("pixels", sha256))
    rows_of: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row, sha256 in enumerate(hashes):
        rows_of[root(("pixels", sha256))].append(row)
    units = []
    for rows in rows_of.values():
        votes = Counter(labels[row] for row in rows)
        units.append(
            _Unit(
                key=min(hashes[row] for row in rows),
                rows=tuple(rows),
                owner=next((part for part in HELD_OUT if any(own[row] == part for row in rows)), None),
                label=min(votes, key=lambda label: (-votes[label], label)),
            )
        )
    return sorted(units, key=lambda unit: unit.key)


def _by_class(units: Sequence[_Unit], classes: Sequence[str]) -> list[list[_Unit]]:
    """The units that are free to go anywhere, for each class."""
    free: list[list[_Unit]] = [[] for _ in classes]
    for unit in units:
        if unit.owner is None:
            free[unit.label].append(unit)
    return free


def _shares(
    free: Sequence[Sequence[_Unit]], brought: Sequence[Part], test: float, val: float, calib: float, calib_images: int
) -> dict[Part, float]:
    """The share of each class that each part gets, in the order in which they are served; train is what remains."""
    images = sum(len(unit.rows) for of_class in free for unit in of_class)
    rest = 1.0 if "test" in brought else 1.0 - test
    shares: dict[Part, float] = {
        "test": test,
        "val": rest * val,
        "calib": min(rest * calib, calib_images / max(1, images)),
    }
    return {part: share for part, share in shares.items() if part not in brought}


def _cut(units: Sequence[_Unit], shares: Mapping[Part, float], seed: int) -> Iterator[tuple[_Unit, Part]]:
    """A part for each unit of one class. A part takes units until it has its share; each later one is left at least
    one. Without duplicates, a part's size is within one image of its share."""
    waiting = sorted(units, key=lambda unit: (seeding.seed_of(seed, CHECK, unit.key), unit.key))
    images = sum(len(unit.rows) for unit in waiting)
    first = 0
    for to_come, (part, share) in zip(range(len(shares), 0, -1), shares.items(), strict=True):
        wanted, taken = max(1, int(share * images + 0.5)), 0
        while taken < wanted and len(waiting) - first > to_come:
            yield waiting[first], part
            taken += len(waiting[first].rows)
            first += 1
    for unit in waiting[first:]:
        yield unit, "train"


def _check_fractions(test: float, val: float, calib: float) -> None:
    for name, fraction in (("test", test), ("val", val), ("calib", calib)):
        if not 0 < fraction < 1:
            raise ConfigError(f"{name}_fraction is {fraction}, which is not between 0 and 1", hint="0.1 is a tenth")
    if val + calib >= 1:
        raise ConfigError(
            f"val_fraction {val} and calib_fraction {calib} leave nothing to train on", hint="0.1 and 0.05 are usual"
        )


def _check_counts(
    classes: Sequence[str],
    free: Sequence[Sequence[_Unit]],
    brought: Sequence[Part],
    parts: Sequence[Part | None],
    labels: Sequence[int],
) -> None:
    """Refuse a class that cannot stand in every part."""
    to_cut = [part for part in PARTS if part not in brought]
    short = [(name, len(units)) for name, units in zip(classes, free, strict=True) if len(units) < len(to_cut)]
    if short:
        name, images = short[0]
        missing = len(to_cut) - images
        others = f"; so do {name_a_few(repr(other) for other, _ in short[1:])}" if len(short) > 1 else ""
        raise DataError(
            f"class '{name}' has {count_of(images, 'different image')} to cut into {', '.join(to_cut)}, and each needs "
            f"one: it lacks {count_of(missing, 'image')}{others}",
            hint="add images to the class, or take it away",
        )
    there = set(zip(parts, labels, strict=True))
    for part in brought:
        absent = [name for label, name in enumerate(classes) if (part, label) not in there]
        if absent:
            raise DataError(
                f"the source's own {part} part has no image of class {name_a_few(map(repr, absent))}",
                hint="add images of it there, or take the class away",
            )


def _dropped(
    items: Sequence[str], own: Sequence[str | None], parts: Sequence[Part | None], units: Sequence[_Unit]
) -> list[Finding]:
    """One finding for each pair of the source's parts that share images."""
    between: dict[tuple[str, Part], list[str]] = defaultdict(list)
    for unit in units:
        for row in unit.rows:
            if parts[row] is None and unit.owner is not None:
                between[own[row] or "train", unit.owner].append(items[row])
    return [
        Finding(
            check=CHECK,
            severity="warning",
            message=f"left out of {part}, because the same pixels stand in the source's {owner} part: "
            f"{count_of(len(lost), 'image')} ({name_a_few(sorted(lost))})",
            items=tuple(sorted(lost)[:ITEMS_NAMED]),
            evidence={"from": part, "also_in": owner, "images": len(lost)},
        )
        for (part, owner), lost in sorted(between.items())
    ]


def _write(
    out_dir: Path, seed: int, items: Sequence[str], parts: Sequence[Part | None], images: Sequence[tuple[str, int]]
) -> Split:
    """Store the table sorted by item, and describe it."""
    rows = sorted((item, part) for item, part in zip(items, parts, strict=True) if part is not None)
    path = out_dir / "split.parquet"
    columns = {"item": [item for item, _ in rows], "part": [part for _, part in rows]}
    tables.write(path, tables.frame(columns, schema={"item": str, "part": str}), {"seed": seed})
    prints = {}
    for part in PARTS:
        content = [image for image, its_part in zip(images, parts, strict=True) if its_part == part]
        prints[part] = fingerprint((sha256 for sha256, _ in content), (label for _, label in content))
    value = Split(
        seed=seed,
        sizes={part: parts.count(part) for part in PARTS},
        fingerprint=files.digest(prints),
        test_fingerprint=prints["test"],
        table=path,
    )
    value.save(out_dir / "split.json")  # last: where it is, the rest is there, too
    return value
