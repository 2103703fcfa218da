"""Three ways to give each unit a part: by quota, by hash, by time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC
from typing import TYPE_CHECKING, Literal

import numpy as np

from torchstone.core.errors import DataError
from torchstone.core.values import Part
from torchstone.data import times as clock
from torchstone.data.findings import count_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

By = Literal["quota", "hash", "time"]

DESCRIPTION = (
    "quota: exact shares; hash: an image's part for ever, unless a copy joins or leaves it; time: the newest are test"
)

CODE: dict[Part, int] = {"train": 1, "calib": 2, "val": 3, "test": 4}
"""Numbers of the parts, the weakest first: a picture that is claimed by two parts belongs to the larger. 0: none."""

DRAWS = 2.0**63
"""``units.Units.draws`` are below this."""


@dataclass(frozen=True, kw_only=True)
class Pool:
    """The units to be shared out. Of ``units`` there are u, of ``pairs`` (a unit and a class that it has images of) p,
    sorted by class: units of one class alone have one pair each."""

    part: NDArray[np.int8]
    """int8[u]: the part where that is settled already, else 0."""
    there: NDArray[np.bool_]
    """bool[u]: False for units that belong to a part of the source and are not shared out."""
    draws: NDArray[np.int64]
    turns: NDArray[np.intp]
    pair_unit: NDArray[np.intp]
    pair_label: NDArray[np.intp]
    pair_images: NDArray[np.intp]
    """intp[p]: the unit, the class, and how many images."""

    def of_classes(self, classes: int) -> Iterator[tuple[int, NDArray[np.intp], NDArray[np.intp]]]:
        """Each class with its units and their images; that with the fewest units first (Sechidis et al., 2011: the
        rarest class has the least choice)."""
        bounds = np.searchsorted(self.pair_label, np.arange(classes + 1))
        for label in np.argsort(np.diff(bounds), kind="stable"):
            its = slice(bounds[label], bounds[label + 1])
            yield int(label), self.pair_unit[its], self.pair_images[its]


def pool(
    of_row: NDArray[np.intp],
    labels: NDArray[np.intp],
    *,
    part: NDArray[np.int8],
    draws: NDArray[np.int64],
    turns: NDArray[np.intp],
) -> Pool:
    """The pool of these rows (unit and class of each)."""
    there = np.zeros(len(part), np.bool_)
    there[of_row] = True
    pairs, images = np.unique(labels * len(part) + of_row, return_counts=True)
    return Pool(
        part=part, there=there, draws=draws, turns=turns,
        pair_unit=pairs % len(part), pair_label=pairs // len(part), pair_images=images,
    )  # fmt: skip


def by_quota(pool: Pool, shares: Mapping[Part, float], classes: int) -> NDArray[np.int8]:
    """Every class shared out by count, in the order of the draws: a part takes units until it has its share, and each
    later one (train is the last) is left at least one, be it by a change of places at the end. Where units have one
    image of one class each, every part's size is within one image of its share."""
    part = pool.part.copy()
    for _, units, images in pool.of_classes(classes):
        have = np.bincount(part[units], weights=images, minlength=1 + max(CODE.values()))
        free = part[units] == 0
        order = np.argsort(pool.turns[units[free]])
        waiting = units[free][order]
        before = np.concatenate(([0], np.cumsum(images[free][order])))
        total = images.sum()
        names: list[Part] = [*shares, "train"]
        first = 0
        for place, (name, share) in enumerate(shares.items()):
            to_leave = sum(have[CODE[later]] == 0 for later in names[place + 1 :])
            wanted = max(1, int(share * total + 0.5)) - have[CODE[name]]
            enough = int(np.searchsorted(before, before[first] + wanted))
            last = max(first, min(enough, len(waiting) - to_leave))
            part[waiting[first:last]] = CODE[name]
            first = last
        part[waiting[first:]] = CODE["train"]
    return _completed(pool, part, [CODE[name] for name in (*shares, "train")], classes)


def _completed(pool: Pool, part: NDArray[np.int8], codes: Iterable[int], classes: int) -> NDArray[np.int8]:
    """``part``, where a part without a class that others have gets its smallest unit that none of them will miss: units
    of several classes were placed by the rarest, and may have left too few to the next."""
    have = np.zeros((classes, 1 + max(CODE.values())), np.intp)
    np.add.at(have, (pool.pair_label, part[pool.pair_unit]), pool.pair_images)
    for label, units, images in pool.of_classes(classes):
        for code in codes:
            if have[label, code]:
                continue
            for unit in units[np.lexsort((pool.turns[units], images))]:
                its = pool.pair_unit == unit
                labels, counts = pool.pair_label[its], pool.pair_images[its]
                if pool.part[unit] == 0 and (have[labels, part[unit]] > counts).all():
                    have[labels, part[unit]] -= counts
                    have[labels, code] += counts
                    part[unit] = code
                    break
    return part


def by_hash(pool: Pool, shares: Mapping[Part, float]) -> NDArray[np.int8]:
    """Each unit's part from its own draw, whatever else there is; a part's size is its share within sampling error."""
    codes = np.array([*(CODE[name] for name in shares), CODE["train"]], np.int8)
    bounds = np.cumsum(list(shares.values())) * DRAWS
    drawn = codes[np.searchsorted(bounds, pool.draws, side="right")]
    return np.where(pool.part == 0, drawn, pool.part)


def by_time(pool: Pool, shares: Mapping[Part, float], classes: int, newest: NDArray[np.float64]) -> NDArray[np.int8]:
    """Test from the newest images, then val; the oldest are train, and calib is drawn from among them by quota.

    ``newest`` float64[u]: time of each unit's newest image, in seconds; all of one time stay on one side of a cut, the
    one that comes nearest to the share. Nothing in train is newer than the cut that test begins with. Raises a
    DataError where there are fewer different times than parts to cut."""
    part = pool.part.copy()
    images = np.bincount(pool.pair_unit, weights=pool.pair_images, minlength=len(part))
    later: list[Part] = [name for name in ("test", "val") if name in shares]
    free = np.flatnonzero((part == 0) & pool.there)
    times, moment = np.unique(newest[free], return_inverse=True)
    if len(times) <= len(later):
        missing = len(later) + 1 - len(times)
        raise DataError(
            f"the images have {count_of(len(times), 'different time')}, and cutting {', '.join(later)}, train by time "
            f"needs {len(later) + 1}: {count_of(missing, 'further time')} missing",
            hint="split by quota, or give the times more exactly",
        )
    sizes = np.bincount(moment, weights=images[free])
    total, end = sizes.sum(), len(times)
    for earlier_cuts, name in zip(range(len(later) - 1, -1, -1), later, strict=True):
        after = np.cumsum(sizes[:end][::-1])  # images in the last 1, 2, … times
        most = end - 1 - earlier_cuts
        count = 1 + int(np.argmin(np.abs(after[:most] - shares[name] * total)))
        part[free[(moment >= end - count) & (moment < end)]] = CODE[name]
        end -= count
    return by_quota(replace(pool, part=part), {"calib": shares["calib"]}, classes)


def seconds(times: Iterable[str], items: Iterable[str]) -> NDArray[np.float64]:
    """Seconds since 1970 of times (``times.moment``); one without a zone is UTC. A DataError names the
    first item whose time is none."""
    found = []
    for text, item in zip(times, items, strict=True):
        try:
            moment = clock.moment(text)
        except ValueError:
            raise DataError(
                f"the time of '{item}' is '{text}', which is not ISO 8601", hint="2026-11-22 or 2026-11-22T05:45:00Z"
            ) from None
        found.append((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    return np.array(found)
