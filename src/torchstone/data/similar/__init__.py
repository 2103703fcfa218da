"""Which images show the same picture: re-compressed, resized, mirrored, brightened, or trimmed at the edges.

Each picture is a grey thumbnail. Its low frequencies are an address, by which few candidates are found among all
(``candidates``); laying one thumbnail on the other tells which of these are the same (``register``). Time grows with
n^1.5 in the number of images, memory with n.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from torchstone.data.parallel import in_order
from torchstone.data.similar import index, register

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE = index.SIDE
"""Pixels of a thumbnail's sides."""

SAME = 0.88
"""Score (``register.scores``) from which two images show the same picture, unless many are alike: see ``_accepted``."""

CERTAIN = 0.99
"""Score that is enough even then."""

CROWD = 8
"""Rank of the other image, by score, that tells how alike different pictures are in this one's surroundings."""

DISTANCE = 0.4
"""Times the distance (1 - score) of that one from which a pair is the same picture: after Lowe's ratio test (2004)."""

STILL_SAME = 0.75
"""Score that an image must have with the centre of its cluster when it was found by way of a third one."""

PLAIN = 1.5
"""Levels (of 255) from one pixel of the thumbnail to the next, as a root mean square, below which a picture is too
plain to be told from others: clear sky, a blank page. What is left to compare is noise."""

SMALLEST = 32
"""Pixels of the shorter side below which two images are not compared with each other: their thumbnails are for the most
part made up. At 28 pixels, 661 of MNIST's 10,000 digits were taken for others in another hand. A small image is still
compared with larger ones, whose trimmed or shrunk copy it may be."""

PAIRS_AT_ONCE = 256


@dataclass(frozen=True)
class Similar:
    """The images that show the same picture."""

    pairs: NDArray[np.int32]
    """int32[m, 2]: rows of images with different pixels, the smaller first. Of images with equal pixels, the first
    stands for all."""
    scores: NDArray[np.float32]
    """float32[m]: of each pair, SAME..1."""
    picture: NDArray[np.int32]
    """int32[n]: a number for each picture, in the order in which they first appear."""
    crowded: NDArray[np.int32]
    """Rows that are as like ``CROWD`` or more others (SAME) as copies are, where that was not enough: whether these are
    copies, frames of a scene, or merely pictures of a kind cannot be told."""


def thumbnail(luma: Image.Image) -> NDArray[np.uint8]:
    """uint8[SIDE, SIDE] of a grey picture. Both sides become SIDE: an edge that is trimmed off is a stretch, then."""
    if luma.size != (SIDE, SIDE):
        luma = luma.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.asarray(luma)


def find(
    thumbnails: NDArray[np.uint8], digests: NDArray[np.uint8], short_sides: NDArray[np.int32] | None = None
) -> Similar:
    """Compare all images with each other, but for those too plain for it (PLAIN), and two that are both too small
    (SMALLEST).

    ``thumbnails`` is uint8[n, SIDE, SIDE], which may be a memory-mapped file; ``digests``, uint8[n, 32], tells which
    have equal pixels; ``short_sides`` are in pixels (None: all are large enough). The result depends on these alone.
    """
    first, copy_of = _distinct(digests)
    large = np.ones(len(thumbnails), bool) if short_sides is None else short_sides >= SMALLEST
    rows = first if large[first].any() else first[:0]
    rows = rows[~_plain(thumbnails, rows)]
    keys = index.candidates(thumbnails, rows)
    pairs, scores = _alike(thumbnails, keys, large)
    same = _accepted(pairs, scores)
    crowded = _crowded(pairs, scores, same, len(thumbnails))
    pairs, scores = pairs[same], scores[same]
    centre = np.arange(len(thumbnails), dtype=np.int32)
    for members in _stars(thumbnails, pairs):
        centre[members] = min(members)
    _, picture = np.unique(centre[first[copy_of]], return_inverse=True)
    return Similar(pairs=pairs, scores=scores, picture=picture.astype(np.int32), crowded=crowded)


def _distinct(digests: NDArray[np.uint8]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The first row of each digest, ascending, and for each row, which of these has its digest."""
    keys = np.ascontiguousarray(digests).view(f"V{digests.shape[1]}").ravel()
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return first[order], rank[inverse]


def _plain(thumbnails: NDArray[np.uint8], rows: NDArray[np.intp]) -> NDArray[np.bool_]:
    plain = np.empty(len(rows), bool)
    for start in range(0, len(rows), index.BLOCK):
        some = thumbnails[rows[start : start + index.BLOCK]].astype(np.int16)
        across, down = np.diff(some, axis=2).astype(np.float32), np.diff(some, axis=1).astype(np.float32)
        energy = (across**2).mean(axis=(1, 2)) + (down**2).mean(axis=(1, 2))
        plain[start : start + index.BLOCK] = np.sqrt(energy) < PLAIN
    return plain


def _alike(
    thumbnails: NDArray[np.uint8], keys: NDArray[np.int64], large: NDArray[np.bool_]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The candidates (``index.candidates``) with a score of register.HOPELESS or more, sorted; each pair once. One of
    the two has to be ``large``, bool[n]."""
    chunks = [keys[start : start + PAIRS_AT_ONCE] for start in range(0, len(keys), PAIRS_AT_ONCE)]

    def compare(chunk: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        one, other, mirrored = index.taken_apart(chunk, len(thumbnails))
        either = large[one] | large[other]
        one, other, mirrored = one[either], other[either], mirrored[either]
        found = _scores(thumbnails, one, other, mirrored)
        alike = found >= register.HOPELESS
        return np.stack([one, other], axis=1)[alike].astype(np.int32), found[alike]

    results = list(in_order(compare, chunks, "comparing pictures"))
    pairs = np.concatenate([np.empty((0, 2), np.int32), *(pairs for pairs, _ in results)])
    scores = np.concatenate([np.empty(0, np.float32), *(scores for _, scores in results)])
    order = np.lexsort((-scores, pairs[:, 1], pairs[:, 0]))
    pairs, scores = pairs[order], scores[order]
    best = np.ones(len(pairs), bool)  # a picture may be like another one as it is, and mirrored, too
    best[1:] = (pairs[1:] != pairs[:-1]).any(axis=1)
    return pairs[best], scores[best]


def _accepted(pairs: NDArray[np.int32], scores: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which pairs are the same picture, and not just two of a crowd.

    Where all pictures are alike (digits, parts in front of a fixed camera), each has many that score high. A copy then
    has to be far nearer than these: at most DISTANCE times as far as the CROWD-th nearest of either image.
    """
    both = np.concatenate([pairs[:, 0], pairs[:, 1]])
    twice = np.concatenate([scores, scores])
    order = np.lexsort((-twice, both))
    rows, first = np.unique(both[order], return_index=True)
    last = np.append(first[1:], len(order))
    ranked = np.minimum(first + CROWD - 1, len(order) - 1)
    crowd = np.where(first + CROWD <= last, twice[order[ranked]], 0.0) if len(rows) else np.empty(0)
    nearest = crowd[np.searchsorted(rows, pairs)].max(axis=1) if len(pairs) else np.empty(0)
    return scores >= np.clip(1 - DISTANCE * (1 - nearest), SAME, CERTAIN)


def _crowded(
    pairs: NDArray[np.int32], scores: NDArray[np.float32], same: NDArray[np.bool_], size: int
) -> NDArray[np.int32]:
    """Rows with ``CROWD`` or more neighbours of score SAME, some of which were not accepted."""
    alike = scores >= SAME
    neighbours = np.bincount(pairs[alike].ravel(), minlength=size)
    refused = np.unique(pairs[alike & ~same])
    return refused[neighbours[refused] >= CROWD].astype(np.int32)


def _scores(
    thumbnails: NDArray[np.uint8], one: NDArray[np.int64], other: NDArray[np.int64], mirrored: NDArray[np.bool_]
) -> NDArray[np.float32]:
    a, b = thumbnails[one], thumbnails[other]
    b[mirrored] = b[mirrored, :, ::-1]
    return register.scores(a, b)


def _stars(thumbnails: NDArray[np.uint8], pairs: NDArray[np.int32]) -> Iterator[list[int]]:
    """The pairs as clusters, each around an image that all its members were compared with.

    Neighbours alone would make chains: a camera that pans shows at last what nothing of was there at first. Here, the
    image with the most neighbours gathers them, and of their neighbours those that it resembles itself (STILL_SAME).
    What remains begins anew.
    """
    near: dict[int, set[int]] = defaultdict(set)
    for a, b in pairs.tolist():
        near[a].add(b)
        near[b].add(a)
    free = set(near)
    for centre in sorted(near, key=lambda row: (-len(near[row]), row)):
        if centre not in free:
            continue
        members = {centre, *(near[centre] & free)}
        beyond = sorted({row for member in members for row in near[member]} & (free - members))
        if beyond:
            others = np.array(beyond * 2, np.int64)
            mirrored = np.repeat([False, True], len(beyond))
            found = _scores(thumbnails, np.full(len(others), centre, np.int64), others, mirrored)
            members |= {row for row, score in zip(others.tolist(), found, strict=True) if score >= STILL_SAME}
        free -= members
        if len(members) > 1:
            yield sorted(members)
