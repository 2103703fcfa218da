"""Few candidates for each picture among a million, by the low frequencies of its thumbnail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from torchstone.core import seeding
from torchstone.data.parallel import in_order

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE = 32

FREQUENCIES = 6
"""Along each axis, of the discrete cosine transform. With fewer, different pictures look alike; more would not survive
the trimming of an edge."""

TRIMMED = 0.05
"""Each picture is also looked up as if this share had been trimmed off each side: that finds copies that lost up to
twice as much."""

LOOKUPS = ((0.0, False), (0.0, True), (TRIMMED, False), (TRIMMED, True))
"""How each picture is looked up: trimmed by, mirrored."""

NEAR = 0.78
"""Cosine between two addresses below which the pictures are not compared."""

MOST = 6
"""Candidates for each lookup of a picture, the nearest first. Of copies planted among 60,000 pictures, trimmed by up to
10 % a side, 99.7 % are among the first 4."""

PROBES = 8
"""Cells that each lookup searches."""

BLOCK = 16_384
"""Pictures looked up at once."""

PRODUCTS = 2**20
"""Scalar products held at once by each thread, so that memory does not depend on how the pictures fall into cells."""

WIDEST = 2**15
"""Pictures of one cell that are compared with at once."""


def candidates(thumbnails: NDArray[np.uint8], rows: NDArray[np.intp]) -> NDArray[np.int64]:
    """Pairs worth comparing among these rows of uint8[n, SIDE, SIDE]: sorted keys (``taken_apart``)."""
    if len(rows) < 2:
        return np.empty(0, np.int64)
    table = _Cells(thumbnails, rows)
    starts = range(0, len(rows), BLOCK)
    found = in_order(lambda start: table.near(rows[start : start + BLOCK]), starts, "looking for similar pictures", 1)
    return np.unique(np.concatenate(list(found)))


def taken_apart(keys: NDArray[np.int64], size: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Rows of a pair, the smaller first, and whether one of both is mirrored; ``size`` is of all thumbnails."""
    pair, mirrored = np.divmod(keys, 2)
    one, other = np.divmod(pair, size)
    return one, other, mirrored.astype(bool)


def addresses(thumbnails: NDArray[np.uint8], trimmed: float = 0.0, mirrored: bool = False) -> NDArray[np.float32]:
    """float32[n, d] of norm 1, 0 for a picture without any contrast."""
    flat = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    found = flat @ _projection(trimmed, mirrored)
    norms = np.linalg.norm(found, axis=1, keepdims=True)
    return found / np.maximum(norms, 1e-3)


@cache
def _projection(trimmed: float, mirrored: bool) -> NDArray[np.float32]:
    """float32[SIDE², d]: from a thumbnail to the coefficients of the cosine transform of what is left of it, without
    the mean. The square root of the frequency goes halfway to giving all of them the same weight: the spectrum of
    natural pictures falls with the frequency."""
    at = (np.arange(SIDE) + 0.5) / SIDE
    waves = np.array([np.cos(np.pi * frequency * at) * (1 if frequency else 0.5**0.5) for frequency in range(SIDE)])
    places = np.clip((trimmed + (1 - 2 * trimmed) * at) * SIDE - 0.5, 0, SIDE - 1)
    sampled = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(SIDE)))
    down = waves[:FREQUENCIES] @ sampled
    across = down[:, ::-1] if mirrored else down
    frequency = np.hypot(*np.mgrid[:FREQUENCIES, :FREQUENCIES])
    kept = (frequency > 0) & (frequency < FREQUENCIES)
    both = np.einsum("ay,bx->abyx", down, across).reshape(FREQUENCIES, FREQUENCIES, SIDE * SIDE)
    return np.ascontiguousarray((both[kept] * np.sqrt(frequency[kept])[:, None]).T, np.float32)


class _Cells:
    """The addresses, sorted into cells around centres: an inverted file (Sivic and Zisserman 2003)."""

    def __init__(self, thumbnails: NDArray[np.uint8], rows: NDArray[np.intp]) -> None:
        self.thumbnails = thumbnails
        plain = np.concatenate(
            [addresses(thumbnails[rows[start : start + BLOCK]]).astype(np.float16) for start in _blocks(len(rows))]
        )
        self.centres = _centres(plain)
        cells = _nearest(plain, self.centres)
        order = np.argsort(cells, kind="stable")
        self.rows = rows[order]
        self.addresses = plain[order]
        self.starts = np.searchsorted(cells[order], np.arange(len(self.centres) + 1))

    def near(self, rows: NDArray[np.intp]) -> NDArray[np.int64]:
        """Keys of the pairs of these rows with any others."""
        return np.unique(np.concatenate([self._lookup(rows, trimmed, mirrored) for trimmed, mirrored in LOOKUPS]))

    def _lookup(self, rows: NDArray[np.intp], trimmed: float, mirrored: bool) -> NDArray[np.int64]:
        wanted = addresses(self.thumbnails[rows], trimmed, mirrored)
        probes = min(PROBES, len(self.centres))
        steps = _steps(len(wanted), len(self.centres))
        nearest = [np.argpartition(wanted[step] @ self.centres.T, -probes, axis=1)[:, -probes:] for step in steps]
        cells = np.concatenate(nearest).ravel()
        order = np.argsort(cells, kind="stable")
        bounds = np.searchsorted(cells[order], np.arange(len(self.centres) + 1))
        hits = [
            self._in_cell(cell, rows, wanted, order[bounds[cell] : bounds[cell + 1]] // probes)
            for cell in np.flatnonzero((np.diff(bounds) > 0) & (np.diff(self.starts) > 0))
        ]
        best = _Hits.joined(hits).best()
        one, other = rows[best.asker], best.other
        low, high = np.minimum(one, other), np.maximum(one, other)
        return (low.astype(np.int64) * len(self.thumbnails) + high) * 2 + mirrored

    def _in_cell(
        self, cell: np.intp, rows: NDArray[np.intp], wanted: NDArray[np.float32], asking: NDArray[np.intp]
    ) -> _Hits:
        """The nearest in one cell for each of those that are ``asking`` (places in ``rows``)."""
        found = []
        for start in range(self.starts[cell], self.starts[cell + 1], WIDEST):
            inside = slice(start, min(start + WIDEST, self.starts[cell + 1]))
            theirs, others = self.addresses[inside].astype(np.float32).T, self.rows[inside]
            for step in _steps(len(asking), theirs.shape[1]):
                cosines = wanted[asking[step]] @ theirs
                asker, other = np.nonzero(cosines >= NEAR)
                hits = _Hits(asking[step][asker], others[other], cosines[asker, other])
                found.append(hits.at(rows[hits.asker] != hits.other).best())
        return _Hits.joined(found).best()


@dataclass(frozen=True)
class _Hits:
    """Who asked, what is near it, and how near: arrays of one length."""

    asker: NDArray[np.intp]
    other: NDArray[np.intp]
    cosine: NDArray[np.float32]

    @classmethod
    def joined(cls, parts: Sequence[_Hits]) -> _Hits:
        empty = cls(np.empty(0, np.intp), np.empty(0, np.intp), np.empty(0, np.float32))
        columns = ([getattr(part, field.name) for part in (empty, *parts)] for field in fields(cls))
        return cls(*map(np.concatenate, columns))

    def at(self, places: NDArray[Any]) -> _Hits:
        return _Hits(self.asker[places], self.other[places], self.cosine[places])

    def best(self) -> _Hits:
        """The ``MOST`` nearest of each asker."""
        return self.at(_best(self.asker, self.cosine))


def _best(groups: NDArray[np.intp], values: NDArray[np.float32]) -> NDArray[np.intp]:
    """Where the MOST largest values of each group are."""
    order = np.lexsort((-values, groups))
    sorted_groups = groups[order]
    first = np.searchsorted(sorted_groups, sorted_groups)
    return order[np.arange(len(order)) - first < MOST]


def _centres(vectors: NDArray[np.float16], rounds: int = 8) -> NDArray[np.float32]:
    """float32[k, d] of norm 1, k about 4 √n: spherical k-means on a sample, from members drawn at random."""
    count = max(1, min(len(vectors) // 8, round(4 * len(vectors) ** 0.5)))
    random = np.random.default_rng(seeding.seed_of(0, "similar"))
    sample = vectors[np.sort(random.permutation(len(vectors))[: 32 * count])].astype(np.float32)
    centres = sample[np.sort(random.permutation(len(sample))[:count])]
    for _ in range(rounds):
        nearest = _nearest(sample, centres)
        order = np.argsort(nearest, kind="stable")
        there, first = np.unique(nearest[order], return_index=True)
        sums = np.add.reduceat(sample[order], first, axis=0)
        centres = centres.copy()
        centres[there] = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-6)
    return centres


def _nearest(vectors: NDArray[Any], centres: NDArray[np.float32]) -> NDArray[np.intp]:
    """Which centre is nearest to each."""
    return np.concatenate([(vectors[step] @ centres.T).argmax(axis=1) for step in _steps(len(vectors), len(centres))])


def _steps(size: int, width: int) -> list[slice]:
    """``size`` rows cut so that each piece times ``width`` is no more than ``PRODUCTS``."""
    step = max(1, min(BLOCK, PRODUCTS // max(1, width)))
    return [slice(start, start + step) for start in range(0, size, step)]


def _blocks(size: int) -> range:
    return range(0, size, BLOCK)
