"""Four parts, held apart by what the images show: the same picture or group never stands in two of them.

A source's own test part is respected, and its own val part where it has both; everything else is cut from the rest,
class by class. Units (data.units) are ordered by a hash of their pixels and the seed, so that neither names nor order
count. An earlier split of the same data keeps every image where it was.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from torchstone.core import console, files, tables
from torchstone.core.errors import ArtifactError, ConfigError, DataError, nearest
from torchstone.core.values import PARTS, Catalog, Finding, Part, Split
from torchstone.data import findings as reported
from torchstone.data.catalog import fingerprint
from torchstone.data.findings import count_of, name_a_few
from torchstone.data.split import cut
from torchstone.data.split.cut import CODE
from torchstone.data.split.cut import By as By
from torchstone.data.units import Units, look_alikes, units

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHECK = "split"
"""The name under which findings of the split are stored."""

HELD_OUT: tuple[Part, ...] = ("test", "val")
"""The parts that a source can bring with it. What stands in two of them belongs to the first."""

LINEAGE = "lineage"
"""Field of the table's header: see ``_lineage``."""

CALIB_IMAGES = 300
"""Calibration gains nothing from more."""

NAMES: dict[int, Part] = {code: part for part, code in CODE.items()}

LEFT_OUT = -1
"""The code of images that an earlier split knew and gave no part."""


def split(
    catalog: Catalog,
    out_dir: Path,
    *,
    seed: int,
    test_fraction: float = 0.2,
    val_fraction: float = 0.1,
    calib_fraction: float = 0.05,
    by: By = "quota",
    previous: Path | None = None,
) -> Split:
    """Write ``split.parquet`` (item, part, sha256; the part is null for an image that is left out) and ``split.json``;
    what was noticed joins ``findings.json`` in ``out_dir``.

    ``test_fraction`` is of all images and counts only where the source has no test part; the other fractions are of
    the images that are not test. Every part gets at least one image of each class. ``by`` says how units find a part:

    - ``quota``: each class is shared out by count, within one image (one unit) of the fractions; calib is limited to
      ``CALIB_IMAGES``. Exact shares need all images together, so that others move when images are added – unless
      ``previous`` is given.
    - ``hash``: from the unit's own key (``data.units``) and the seed alone, the same in any company unless a copy joins
      or leaves it; shares hold within sampling error, and calib has no limit.
    - ``time``: the newest are test, then val, the oldest train (``cut.by_time``).

    ``previous`` is the ``split.parquet`` of an earlier version of the data. Images that were in it, told by their
    pixels, stay where they were, and the new ones fill the shares. Of pictures that are newly found equal across two of
    its parts, the copy in the weaker part (train, calib, val, test) is dropped, never moved. What an earlier split left
    out stays out.

    Images of the source's train part that show what stands in its test (or val) part, too, are dropped from train: they
    are in no part, and a finding (check ``split``) counts them. Raises a DataError when a class has fewer different
    images than there are parts to cut, a ConfigError for options that cannot be met.
    """
    check_options(
        test_fraction=test_fraction, val_fraction=val_fraction, calib_fraction=calib_fraction, by=by, previous=previous
    )
    table, _ = tables.read(catalog.table)
    joined = units(table, seed, CHECK, look_alikes(catalog, table))
    claims = _claims(table, joined, previous)
    in_play, classes = claims.in_play, catalog.classes
    labels = table["label"].to_numpy().astype(np.intp)
    shares = _shares(claims.brought, test_fraction, val_fraction, calib_fraction)
    pool = cut.pool(joined.of_row[in_play], labels[in_play], part=claims.kept, draws=joined.draws, turns=joined.turns)
    _check_counts(classes, pool, shares, labels, claims)
    if by == "quota":
        shares["calib"] = min(shares["calib"], CALIB_IMAGES / max(1, int(in_play.sum())))
        cut_units = cut.by_quota(pool, shares, len(classes))
    elif by == "hash":
        cut_units = cut.by_hash(pool, shares)
    else:
        cut_units = cut.by_time(pool, shares, len(classes), _newest(table, joined, in_play))
    parts = np.where(in_play, cut_units[joined.of_row], np.where(claims.own == claims.owner, claims.owner, 0))
    _check_presence(classes, parts, labels, shares, by)
    reported.replace(out_dir, CHECK, _noticed(table, joined, claims, parts))
    header = {"seed": seed, "by": by, "fractions": [test_fraction, val_fraction, calib_fraction]}
    return _write(out_dir, table, parts, {**header, LINEAGE: _lineage(previous)})


def items_of(split: Split, part: Part) -> list[str]:
    """The items of one part, sorted."""
    table, _ = tables.read(split.table)
    return [item for item, its_part in table.select("item", "part").iter_rows() if its_part == part]


def check_options(
    *,
    test_fraction: float,
    val_fraction: float = 0.1,
    calib_fraction: float = 0.05,
    by: str = "quota",
    previous: Path | None = None,
) -> None:
    """Refuse what ``split`` cannot do, before the images are read: a ConfigError."""
    for name, fraction in (("test", test_fraction), ("val", val_fraction), ("calib", calib_fraction)):
        if not 0 < fraction < 1:
            raise ConfigError(f"{name}_fraction is {fraction}, which is not between 0 and 1", hint="0.1 is a tenth")
    if val_fraction + calib_fraction >= 1:
        raise ConfigError(
            f"val_fraction {val_fraction} and calib_fraction {calib_fraction} leave nothing to train on",
            hint="0.1 and 0.05 are usual",
        )
    if by not in get_args(By):
        raise ConfigError(f"there is no split by '{by}'", hint=nearest(by, get_args(By)))
    if by == "time" and previous is not None:
        raise ConfigError(
            "a split by time cannot keep an earlier one: images newer than its test part would be trained on",
            hint="leave the earlier split out, or split by quota or hash",
        )


def goes_on_from(
    place: Path,
    *,
    seed: int,
    by: By,
    test_fraction: float,
    val_fraction: float = 0.1,
    calib_fraction: float = 0.05,
    named: Path | None = None,
) -> Path | None:
    """The ``split.parquet`` from which a new version of the data keeps its images where they were: that in ``place`` if
    it was made with these options and, where an earlier split is ``named``, went on from that one itself; else
    ``named``. None by time: there, newer images must push the cuts on."""
    path = place / "split.parquet"
    if by == "time" or not path.exists():
        return named
    header = tables.header(path)
    asked = {"seed": seed, "by": by, "fractions": [test_fraction, val_fraction, calib_fraction]}
    if any(header.get(name) != value for name, value in asked.items()):
        console.say(f"the split in '{place}' was made with other options: images change their parts")
        return named
    known = {row["sha256"] for row in header.get(LINEAGE, [])}
    return path if named is None or files.sha256(named) in known else named


def _lineage(previous: Path | None) -> list[dict[str, Any]]:
    """The splits that a split on ``previous`` comes from, the first one first: the ``sha256`` of each file, and its
    ``test`` fingerprint where that is known."""
    if previous is None:
        return []
    header = tables.header(previous)
    one = {"sha256": files.sha256(previous), "test": header.get("test")}
    return [*header.get(LINEAGE, []), one]


@dataclass(frozen=True)
class _Claims:
    """What is settled before anything is cut: codes of parts (``cut.CODE``), 0 for none."""

    own: NDArray[np.int8]
    """int8[rows]: the source's own part."""
    owner: NDArray[np.int8]
    """int8[rows]: the source's held-out part that its unit belongs to."""
    earlier: NDArray[np.int8]
    """int8[rows]: the part in the earlier split, as far as the source does not say otherwise; ``LEFT_OUT`` for what it
    left out."""
    kept: NDArray[np.int8]
    """int8[units]: the strongest of the unit's earlier parts."""
    in_play: NDArray[np.bool_]
    """bool[rows]: neither the source's to place nor dropped."""

    @property
    def brought(self) -> list[Part]:
        """The held-out parts that the source brings."""
        return [part for part in HELD_OUT if (self.own == CODE[part]).any()]


def _claims(table: Any, joined: Units, previous: Path | None) -> _Claims:
    own = _codes(table["part"])
    held_out = np.isin(own, [CODE[part] for part in HELD_OUT])
    owner = joined.largest(np.where(held_out, own, 0).astype(np.int8))[joined.of_row]
    earlier = np.zeros_like(own) if previous is None else _earlier(previous, table)
    earlier[(owner > 0) | np.isin(earlier, np.unique(own[held_out]))] = 0
    kept = np.maximum(joined.largest(earlier), 0)
    in_play = (owner == 0) & ((earlier == 0) | (earlier == kept[joined.of_row]))
    return _Claims(own, owner, earlier, kept, in_play)


def _codes(parts: Any) -> NDArray[np.int8]:
    """``cut.CODE`` of each, 0 for null."""
    return np.fromiter((CODE.get(part, 0) for part in parts), np.int8, len(parts))


def _earlier(previous: Path, table: Any) -> NDArray[np.int8]:
    """The part of each row in an earlier split: 0 where its pixels were not in it, ``LEFT_OUT`` where they were in none
    of its parts."""
    before, _ = tables.read(previous)
    if not {"part", "sha256"} <= set(before.columns):
        raise ArtifactError(
            f"'{previous}' is not a split: it lacks the columns part, sha256", hint="name a split.parquet"
        )
    found = _codes(before["part"])
    found[found == 0] = LEFT_OUT
    codes = tables.frame({"sha256": before["sha256"], "code": found})
    if not (codes["code"] > 0).any():
        raise ArtifactError(f"'{previous}' gives no image a part", hint="name a split.parquet")
    of_pixels = codes.group_by("sha256").max()
    joined = table.select("sha256").join(of_pixels, on="sha256", how="left", maintain_order="left")
    return joined["code"].fill_null(0).to_numpy().astype(np.int8)


def _newest(table: Any, joined: Units, in_play: NDArray[np.bool_]) -> NDArray[np.float64]:
    """float64[u]: when each unit's newest image was taken, in seconds; -inf for units that are not shared out."""
    times = table["time"] if "time" in table.columns else [None] * table.height
    wanted = np.flatnonzero(in_play)
    lacking = sum(times[int(row)] is None for row in wanted)
    if lacking:
        raise DataError(
            f"a split by time needs the time of every image, and {count_of(lacking, 'image')} lack it",
            hint="give a time column in the manifest, or split by quota",
        )
    found = np.full(table.height, -np.inf)
    found[wanted] = cut.seconds((str(times[int(row)]) for row in wanted), (table["item"][int(row)] for row in wanted))
    return joined.largest(found)


def _shares(brought: Sequence[Part], test: float, val: float, calib: float) -> dict[Part, float]:
    """The share of the images that each part gets, in the order in which they are served; train is what remains."""
    rest = 1.0 if "test" in brought else 1.0 - test
    shares: dict[Part, float] = {"test": test, "val": rest * val, "calib": rest * calib}
    return {part: share for part, share in shares.items() if part not in brought}


def _check_counts(
    classes: Sequence[str],
    pool: cut.Pool,
    shares: Mapping[Part, float],
    labels: NDArray[np.intp],
    claims: _Claims,
) -> None:
    """Refuse a class that cannot stand in every part."""
    to_cut: list[Part] = [part for part in PARTS if part == "train" or part in shares]
    lacking: dict[int, tuple[int, list[Part], int]] = {}
    for label, its_units, _ in pool.of_classes(len(classes)):
        settled = pool.part[its_units]
        empty: list[Part] = [part for part in to_cut if not (settled == CODE[part]).any()]
        missing = len(empty) - int((settled == 0).sum())
        if missing > 0:
            lacking[label] = len(its_units), empty, missing
    if lacking:
        first, *others = sorted(lacking)
        images, empty, missing = lacking[first]
        lacks = f"it lacks {count_of(missing, 'image')}"
        if others:
            lacks += f"; so do {name_a_few(repr(classes[label]) for label in others)}"
        if pool.part.any():
            raise DataError(
                f"there is no image of class '{classes[first]}' for {', '.join(empty)} when its others stay where the "
                f"earlier split has them: {lacks}",
                hint="add images to the class, or split anew, under another --name or --out",
            )
        raise DataError(
            f"class '{classes[first]}' has {count_of(images, 'different image')} to cut into {', '.join(to_cut)}, and "
            f"each needs one: {lacks}",
            hint="add images to the class, or take it away",
        )
    for part in claims.brought:
        there = np.bincount(labels[(claims.own == CODE[part]) & (claims.owner == CODE[part])], minlength=len(classes))
        if absent := [name for name, count in zip(classes, there, strict=True) if not count]:
            raise DataError(
                f"the source's own {part} part has no image of class {name_a_few(map(repr, absent))}",
                hint="add images of it there, or take the class away",
            )


def _check_presence(
    classes: Sequence[str], parts: NDArray[np.int8], labels: NDArray[np.intp], shares: Mapping[Part, float], by: By
) -> None:
    """Refuse a split in which a part has no image of a class: by hash and time, or where groups hold many classes."""
    of_part: dict[Part, float] = {"train": 1 - sum(shares.values()), **shares}
    for part, share in of_part.items():
        there = np.bincount(labels[parts == CODE[part]], minlength=len(classes))
        for label in np.flatnonzero(there == 0):
            images = int((labels == label).sum())
            missing = 1 if by == "quota" else max(1, math.ceil(1 / share) - images)
            raise DataError(
                f"cut by {by}, {part} gets none of the {count_of(images, 'image')} of class '{classes[int(label)]}': "
                f"it lacks about {count_of(missing, 'image')}" + (" in a group of its own" if by == "quota" else ""),
                hint="add images to the class" + ("" if by == "quota" else ", or split by quota"),
            )


def _noticed(table: Any, joined: Units, claims: _Claims, parts: NDArray[np.int8]) -> Iterator[Finding]:
    owned = claims.owner > 0
    yield from _left_out(table, owned & (claims.own != claims.owner), claims.own, claims.owner, "the source's")
    lost = ~owned & ~claims.in_play
    stronger = claims.kept[joined.of_row]
    yield from _left_out(table, lost & (stronger > 0), claims.earlier, stronger, "the earlier split's")
    if (still := lost & (stronger == 0)).any():
        yield _still_left_out(table, still)
    if claims.earlier.any():
        yield _went_on(claims.in_play, claims.earlier > 0, parts)


def _left_out(
    table: Any, lost: NDArray[np.bool_], part: NDArray[np.int8], owner: NDArray[np.int8], whose: str
) -> Iterator[Finding]:
    """One finding for each pair of parts that share pictures or groups; the weaker part's images are left out."""
    for code, stronger in np.unique(np.stack((np.maximum(part, 1), owner), axis=1)[lost], axis=0):
        rows = np.flatnonzero(lost & (np.maximum(part, 1) == code) & (owner == stronger))
        items = tuple(sorted(table["item"].gather(rows).to_list()))
        yield Finding(
            check=CHECK,
            severity="warning",
            message=f"left out of {NAMES[int(code)]}, because the same picture or group stands in {whose} "
            f"{NAMES[int(stronger)]} part: {count_of(len(items), 'image')} ({name_a_few(items)})",
            items=items,
            evidence={"from": NAMES[int(code)], "also_in": NAMES[int(stronger)], "images": len(items)},
        )


def _still_left_out(table: Any, lost: NDArray[np.bool_]) -> Finding:
    """What the earlier split left out for the sake of images that are gone by now."""
    items = tuple(sorted(table["item"].gather(np.flatnonzero(lost)).to_list()))
    return Finding(
        check=CHECK,
        severity="warning",
        message=f"left out, as by the earlier split: {count_of(len(items), 'image')} ({name_a_few(items)})",
        hint="they showed what stood in another part; to use them, split anew, under another --name or --out",
        items=items,
        evidence={"images": len(items)},
    )


def _went_on(in_play: NDArray[np.bool_], there: NDArray[np.bool_], parts: NDArray[np.int8]) -> Finding:
    """What became of an earlier split; of the images in play, those that were ``there`` are kept."""
    kept = in_play & there
    new = {part: int((in_play & ~there & (parts == code)).sum()) for part, code in CODE.items()}
    return Finding(
        check=CHECK,
        severity="info",
        message=f"{count_of(int(kept.sum()), 'image')} where the earlier split had them; new: "
        + ", ".join(f"{part} {count:,}" for part, count in new.items()),
        evidence={"kept": int(kept.sum()), "new": new},
    )


def _write(out_dir: Path, table: Any, parts: NDArray[np.int8], header: dict[str, Any]) -> Split:
    """Store the table sorted by item, and describe it. What is left out is in it, too, without a part: a later split
    must know it, or it would come back as a new image, and into any part."""
    prints = {}
    for part in PARTS:
        its_rows = table.select("sha256", "label")[np.flatnonzero(parts == CODE[part])]
        prints[part] = fingerprint(its_rows["sha256"], its_rows["label"])
    named = tables.frame(
        {"item": table["item"], "part": [NAMES.get(code) for code in parts.tolist()], "sha256": table["sha256"]},
        schema={"part": str},
    )
    path = out_dir / "split.parquet"
    tables.write(path, named.sort("item"), {**header, "test": prints["test"]})
    value = Split(
        seed=header["seed"],
        sizes={part: int((parts == CODE[part]).sum()) for part in PARTS},
        fingerprint=files.digest(prints),
        test_fingerprint=prints["test"],
        earlier_tests=tuple(dict.fromkeys(row["test"] for row in header[LINEAGE] if row["test"])),
        table=path,
    )
    value.save(out_dir / "split.json")  # last: where it is, the rest is there, too
    return value
