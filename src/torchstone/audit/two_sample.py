"""Whether two sets of images are of the same kind: a classifier two-sample test (Lopez-Paz and Oquab 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from torchstone.core import seeding

if TYPE_CHECKING:
    from numpy.typing import NDArray

FOLDS = 5
SHRINKAGE = 0.3
"""How far the covariance is drawn towards a multiple of the identity."""

PERMUTATIONS = 199


@dataclass(frozen=True)
class Told:
    """How well a classifier tells two parts apart on images that it has not seen."""

    auc: float
    low: float
    high: float
    """The AUC's 95 % interval (DeLong, DeLong and Clarke-Pearson 1988)."""
    p: float
    """Of a permutation test."""
    scores: NDArray[np.float64]
    """Of each image; the larger, the more it looks like the second part."""


def tell_apart(vectors: NDArray[np.float32], labels: NDArray[np.intp], pair: NDArray[np.intp], purpose: str) -> Told:
    """Fisher's discriminant between the parts (``pair`` 0 or 1), each image scored by the folds without it.

    The test permutes the parts among the images of a class. With the covariance of both parts together, the
    discriminant is linear in who belongs where, so that all permutations are one product of matrices.
    """
    random = seeding.generator(0, "shift", purpose, len(pair))
    assigned = np.empty((len(pair), 1 + PERMUTATIONS), bool)
    assigned[:, 0] = pair == 1
    fold = np.empty(len(pair), np.intp)
    centred = vectors.astype(np.float32)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        centred[rows] -= centred[rows].mean(0)
        assigned[rows, 1:] = random.permuted(np.tile(assigned[rows, :1], (1, PERMUTATIONS)), axis=0)
        fold[rows] = random.permutation(len(rows)) % FOLDS
    scores = np.empty(assigned.shape)
    for held_out in range(FOLDS):
        inside = fold == held_out
        known = centred[~inside]
        second = assigned[~inside]
        towards = np.where(second, 1 / np.maximum(second.sum(0), 1), -1 / np.maximum((~second).sum(0), 1))
        covariance = (known.T @ known).astype(np.float64) / len(known)
        level = np.trace(covariance) / len(covariance) + np.finfo(np.float32).tiny
        covariance = (1 - SHRINKAGE) * covariance + SHRINKAGE * level * np.eye(len(covariance))
        scores[inside] = centred[inside] @ np.linalg.solve(covariance, known.T @ towards)
    aucs = np.array([auc(scores[chosen, column], scores[~chosen, column]) for column, chosen in enumerate(assigned.T)])
    p = float(1 + np.count_nonzero(aucs[1:] >= aucs[0])) / (1 + PERMUTATIONS)
    spread = 1.96 * standard_error(scores[assigned[:, 0], 0], scores[~assigned[:, 0], 0])
    observed = float(aucs[0])
    return Told(observed, max(0.0, observed - spread), min(1.0, observed + spread), p, scores[:, 0])


def standard_error(second: NDArray[np.float64], first: NDArray[np.float64]) -> float:
    """Of ``auc``, by DeLong's components: for each value, the share of the other part that it beats."""
    ranks = midranks(np.concatenate([second, first]))
    of_second = (ranks[: len(second)] - midranks(second)) / len(first)
    of_first = (ranks[len(second) :] - midranks(first)) / len(second)
    return float(np.sqrt(of_second.var(ddof=1) / len(second) + of_first.var(ddof=1) / len(first)))


def midranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """1..n, equal values sharing their mean rank."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]


def auc(second: NDArray[np.float64], first: NDArray[np.float64]) -> float:
    """Probability that a value of ``second`` is larger than one of ``first``, ties counting half."""
    ranks = midranks(np.concatenate([second, first]))
    return float((ranks[: len(second)].sum() - len(second) * (len(second) + 1) / 2) / (len(second) * len(first)))
