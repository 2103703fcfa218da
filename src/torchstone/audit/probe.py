"""Linear discriminants over feature vectors, fitted in one pass and asked only about images they have not seen.

A linear discriminant needs no iterations: class means and one covariance matrix are sums over the images, and the sums
without a fold are all sums less the fold's. So five held-out fits cost one pass over the vectors whatever their number,
and memory does not grow with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from torchstone.core import seeding
from torchstone.data.units import Units
from torchstone.evaluate.metrics import softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray

FOLDS = 5
NO_FOLD = -1
"""Of rows that the classifiers are neither fitted to nor asked about."""
CHUNK = 8_192
"""Rows worked on at a time."""

SHRINKAGES = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Candidates for how far the covariance is drawn towards a multiple of the identity: much for few images."""

TEMPERATURES = np.geomspace(0.005, 2.0, 40)
"""Candidates for the factor on the scores: features are not normal, so that a discriminant is too sure of itself."""

TUNING_ROWS = 4_000
"""Rows by which shrinkage and temperature are chosen."""


@dataclass(frozen=True)
class Probe:
    """A linear classifier for each fold, fitted without it."""

    folds: NDArray[np.int8]
    """int8[n]: the fold of each row, by ``folds_of``."""
    centre: NDArray[np.float32]
    """float32[d]: subtracted from every vector."""
    weights: NDArray[np.float32]
    """float32[FOLDS, d, classes]."""
    offsets: NDArray[np.float32]
    """float32[FOLDS, classes]; -inf for a class that the other folds have no image of."""
    shrinkage: float
    temperature: float

    def scores(self, vectors: NDArray[np.float32], fold: int) -> NDArray[np.float32]:
        """float32[n, classes] for float32[n, d]: logits of the classifier that has not seen ``fold``."""
        raw = (vectors - self.centre) @ self.weights[fold] + self.offsets[fold]
        return np.float32(self.temperature) * raw

    def held_out(self, vectors: NDArray[np.float32]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
        """All rows, some at a time, with probabilities float32[rows, classes] by the classifier without them."""
        for rows, logits in self.held_out_scores(vectors):
            yield rows, softmax(logits)

    def held_out_scores(self, vectors: NDArray[np.float32]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
        """The same with logits."""
        for start, block in _blocks(vectors):
            for fold, inside in _by_fold(self.folds[start : start + len(block)]):
                yield start + inside, self.scores(block[inside], fold)


def folds_of(labels: NDArray[np.integer], units: Units) -> NDArray[np.int8]:
    """int8[n]: a fold for each row. Units stay together; the units of a class (their first row's) are dealt out in
    turn, so that each fold has as many of them as any other, within one."""
    order = np.argsort(units.turns)
    first = np.unique(units.of_row, return_index=True)[1]
    of_class = labels[first][order]
    fold = np.empty(units.count, np.int8)
    for label in np.unique(of_class):
        dealt = order[of_class == label]
        fold[dealt] = (np.arange(len(dealt)) + label) % FOLDS  # single units of many classes go to different folds
    return fold[units.of_row]


def fit(vectors: NDArray[np.float32], labels: NDArray[np.integer], folds: NDArray[np.int8], classes: int) -> Probe:
    """Fisher's discriminant with a shrunk covariance (Friedman 1989) for each fold, and one temperature (Guo 2017).

    ``vectors`` float32[n, d], ``labels`` 0..classes-1. Shrinkage and temperature are those with the least log loss on
    held-out rows; they are two numbers for thousands of rows.
    """
    centre = vectors[_sample(len(vectors), "centre")].mean(0, dtype=np.float64).astype(np.float32)
    counts, sums, products = _moments(vectors, labels, folds, classes, centre)
    tuning = _sample(len(vectors), "tuning")
    tuning = tuning[folds[tuning] != NO_FOLD]
    shown, targets = vectors[tuning], labels[tuning]
    best: tuple[float, Probe] | None = None
    for shrinkage in SHRINKAGES:
        fitted = [
            _discriminant(
                counts.sum(0) - counts[fold], sums.sum(0) - sums[fold], products.sum(0) - products[fold], shrinkage
            )
            for fold in range(FOLDS)
        ]
        weights, offsets = (np.stack(part).astype(np.float32) for part in zip(*fitted, strict=True))
        probe = Probe(folds, centre, weights, offsets, shrinkage, 1.0)
        raw = np.empty((len(tuning), classes), np.float32)
        for fold in range(FOLDS):
            inside = folds[tuning] == fold
            raw[inside] = probe.scores(shown[inside], fold)
        loss, temperature = min((log_loss(np.float32(t) * raw, targets), float(t)) for t in TEMPERATURES)
        if best is None or loss < best[0]:
            best = loss, Probe(folds, centre, weights, offsets, shrinkage, temperature)
    assert best is not None
    return best[1]


def log_loss(logits: NDArray[np.float32], labels: NDArray[np.integer]) -> float:
    """Mean of -log p(label), p at least 1e-12: a class that was never seen costs no infinity."""
    probabilities = softmax(logits)[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(probabilities, 1e-12)).mean())


def _moments(
    vectors: NDArray[np.float32],
    labels: NDArray[np.integer],
    folds: NDArray[np.int8],
    classes: int,
    centre: NDArray[np.float32],
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Of each fold: images of each class [classes], sums of their vectors [classes, d], and all products [d, d]."""
    width = vectors.shape[1]
    counts = np.zeros((FOLDS, classes), np.int64)
    sums = np.zeros((FOLDS, classes, width))
    products = np.zeros((FOLDS, width, width))
    for start, block in _blocks(vectors):
        of_block = labels[start : start + len(block)]
        for fold, inside in _by_fold(folds[start : start + len(block)]):
            centred, mine = block[inside] - centre, of_block[inside]
            counts[fold] += np.bincount(mine, minlength=classes)
            products[fold] += centred.T @ centred
            order = np.argsort(mine, kind="stable")
            there, starts = np.unique(mine[order], return_index=True)
            sums[fold, there] += np.add.reduceat(centred[order], starts, axis=0)
    return counts, sums, products


def _discriminant(
    counts: NDArray[np.int64], sums: NDArray[np.float64], products: NDArray[np.float64], shrinkage: float
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Weights [d, classes] and offsets [classes] of the classifier with these training sums."""
    width, total = len(products), counts.sum()
    means = sums / np.maximum(counts, 1)[:, None]
    within = (products - (means.T * counts) @ means) / max(1, total - np.count_nonzero(counts))
    scale = np.trace(within) / width
    within *= 1 - shrinkage
    within[np.diag_indices(width)] += shrinkage * scale + np.finfo(np.float32).tiny  # all vectors may be equal
    weights = np.linalg.solve(within, means.T)
    with np.errstate(divide="ignore"):
        prior = np.log(counts / max(1, total))
    return weights, prior - 0.5 * (means * weights.T).sum(1)


def _sample(count: int, purpose: str) -> NDArray[np.intp]:
    """At most ``TUNING_ROWS`` rows out of ``count``, sorted; the same ones each time."""
    return np.sort(seeding.generator(0, "probe", purpose, count).permutation(count)[:TUNING_ROWS])


def _blocks(vectors: NDArray[np.float32]) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """The vectors in the order in which they lie on the disk, some at a time, with the number of the first."""
    for start in range(0, len(vectors), CHUNK):
        yield start, np.asarray(vectors[start : start + CHUNK])


def _by_fold(folds: NDArray[np.int8]) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """The rows of each fold that has some."""
    for fold in np.unique(folds[folds != NO_FOLD]):
        yield int(fold), np.flatnonzero(folds == fold)
