"""Classification metrics in numpy alone, so that a verdict can be recomputed where torch and scikit-learn are not.

Shapes: ``labels`` and ``predicted`` are int[N], class indices in ``0..C-1``; ``scores`` is float[N, C] (logits or
probabilities, larger is likelier). Rates are fractions in 0..1. Definitions follow scikit-learn, against which every
function is tested; the one difference is that a rate of nothing (the recall of a class without images) is NaN here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Rates = NDArray[np.float64]


def predicted_classes(scores: ArrayLike) -> NDArray[np.int64]:
    """The class of the largest score of each row, the first where several are equal."""
    return np.argmax(np.asarray(scores), axis=1).astype(np.int64)


def confusion(labels: ArrayLike, predicted: ArrayLike, classes: int) -> NDArray[np.int64]:
    """int64[C, C]: how many images of the row's class were taken for the column's."""
    truth, guess = _paired(labels, predicted)
    for name, values in (("labels", truth), ("predicted", guess)):
        if len(values) and not (values.min() >= 0 and values.max() < classes):
            raise ValueError(f"{name} must lie in 0..{classes - 1}, got {values.min()}..{values.max()}")
    return np.bincount(truth * classes + guess, minlength=classes * classes).reshape(classes, classes)


def top1(labels: ArrayLike, predicted: ArrayLike) -> float:
    """Fraction of images whose predicted class is the label."""
    truth, guess = _paired(labels, predicted)
    return float(np.mean(truth == guess))


def topk(labels: ArrayLike, scores: ArrayLike, k: int) -> float:
    """Fraction of images whose label is among the ``k`` largest scores; equal scores are ranked by class index."""
    values = np.asarray(scores, np.float64)
    truth = np.asarray(labels, np.int64)
    if not 1 <= k <= values.shape[1]:
        raise ValueError(f"k must lie in 1..{values.shape[1]}, got {k}")
    own = np.take_along_axis(values, truth[:, None], axis=1)
    ahead = (values > own).sum(axis=1)
    tied_before = ((values == own) & (np.arange(values.shape[1]) < truth[:, None])).sum(axis=1)
    return float(np.mean(ahead + tied_before < k))


def recall(matrix: ArrayLike) -> Rates:
    """float64[C]: of each class's images, the fraction found; NaN where the class has no images."""
    counts = np.asarray(matrix)
    return _ratio(np.diag(counts), counts.sum(axis=1))


def precision(matrix: ArrayLike) -> Rates:
    """float64[C]: of the images taken for each class, the fraction that were; NaN where there are none."""
    counts = np.asarray(matrix)
    return _ratio(np.diag(counts), counts.sum(axis=0))


def f1(matrix: ArrayLike) -> Rates:
    """float64[C]: harmonic mean of precision and recall; NaN for a class that is neither present nor predicted."""
    counts = np.asarray(matrix)
    return _ratio(2 * np.diag(counts), counts.sum(axis=0) + counts.sum(axis=1))


def macro_f1(matrix: ArrayLike) -> float:
    """Mean F1 over the classes that are present or predicted."""
    return _mean(f1(matrix))


def weighted_f1(matrix: ArrayLike) -> float:
    """Mean F1, each class weighted by its number of images."""
    support = np.asarray(matrix).sum(axis=1)
    present = support > 0
    return float(np.average(f1(matrix)[present], weights=support[present])) if present.any() else float("nan")


def balanced_accuracy(matrix: ArrayLike) -> float:
    """Mean recall over the classes that have images."""
    return _mean(recall(matrix))


def agreement(first: ArrayLike, second: ArrayLike) -> float:
    """Fraction of images for which two models predict the same class, right or wrong."""
    one, other = _paired(first, second)
    return float(np.mean(one == other))


def summary(labels: ArrayLike, scores: ArrayLike) -> dict[str, float]:
    """The figures that ``evaluate`` prints, by name; ``top5`` only where there are more than five classes."""
    values = np.asarray(scores)
    matrix = confusion(labels, predicted_classes(values), values.shape[1])
    figures = {"top1": float(np.trace(matrix) / matrix.sum())}
    if values.shape[1] > 5:
        figures["top5"] = topk(labels, values, 5)
    return figures | {
        "macro_f1": macro_f1(matrix),
        "weighted_f1": weighted_f1(matrix),
        "balanced_accuracy": balanced_accuracy(matrix),
    }


def _paired(first: ArrayLike, second: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    one, other = np.asarray(first, np.int64), np.asarray(second, np.int64)
    if one.shape != other.shape or one.ndim != 1:
        raise ValueError(f"two vectors of one length are needed, got shapes {one.shape} and {other.shape}")
    return one, other


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> Rates:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def _mean(rates: Rates) -> float:
    known = rates[~np.isnan(rates)]
    return float(known.mean()) if len(known) else float("nan")
