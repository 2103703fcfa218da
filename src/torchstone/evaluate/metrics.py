"""Classification metrics in numpy alone, so that a verdict can be recomputed where torch and scikit-learn are not.

Shapes: ``labels`` and ``predicted`` are int[N], class indices in ``0..C-1``; ``scores`` is float[N, C] (logits or
probabilities, larger is likelier), ``probabilities`` is float[N, C] with rows that sum to 1. Rates are fractions in
0..1. Definitions follow scikit-learn, against which every function is tested (but for the calibration error, which it
does not have); the one difference is that a rate of nothing (the recall of a class without images) is NaN here.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Rates = NDArray[np.float64]
CALIBRATION_BINS = 15
"""Of equal width, as in Guo et al. (2017)."""
LEVEL = 0.95
"""Of the interval that is printed beside a top-1."""


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


def interval(share: float, images: int, level: float = LEVEL) -> tuple[float, float]:
    """Within which fractions the top-1 of all such images lies, where ``share`` of ``images`` independent ones are
    right: the score interval of Wilson (1927), two-sided at ``level``, which also holds where all of few are right."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    middle = share + z * z / (2 * images)
    reach = z * math.sqrt(share * (1 - share) / images + (z / (2 * images)) ** 2)
    whole = 1 + z * z / images
    return max(0.0, (middle - reach) / whole), min(1.0, (middle + reach) / whole)


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


def softmax(logits: ArrayLike) -> NDArray[np.floating]:
    """Probabilities along the last axis, in the precision of the logits."""
    values = np.asarray(logits)
    shifted = np.exp(values - values.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def placements(positive: ArrayLike, scores: ArrayLike) -> Rates:
    """float64[N]: the share of the images of the other kind that each is on the right side of; equal scores count half.

    ``positive`` is bool[N] and ``scores`` float[N], larger for the positive ones. The mean over the positive images is
    the area under the ROC curve (Mann-Whitney), and so is the mean over the others; NaN where there are no others.
    """
    kind = np.asarray(positive, bool)
    distinct, place = np.unique(np.asarray(scores), return_inverse=True)
    place = place.ravel()
    ours, others = (np.bincount(place[which], minlength=len(distinct)) for which in (kind, ~kind))
    below = (np.cumsum(others) - others / 2)[place]
    above = (ours.sum() - (np.cumsum(ours) - ours / 2))[place]
    rivals = np.where(kind, others.sum(), ours.sum())
    return np.divide(np.where(kind, below, above), rivals, out=np.full(len(kind), np.nan), where=rivals > 0)


def auroc(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Area under the ROC curve of each class against the rest, averaged over the classes that have images, but not
    all of them; NaN where there is none."""
    truth, values = np.asarray(labels, np.int64), np.asarray(probabilities)
    areas = [
        placements(truth == label, values[:, label])[truth == label].mean() for label in classes_with_rivals(truth)
    ]
    return float(np.mean(areas)) if areas else float("nan")


def classes_with_rivals(labels: ArrayLike) -> NDArray[np.int64]:
    """The classes that have images, unless all images are of one."""
    present = np.unique(np.asarray(labels, np.int64))
    return present if len(present) > 1 else present[:0]


def calibration_gaps(
    labels: ArrayLike, probabilities: ArrayLike, bins: int = CALIBRATION_BINS
) -> tuple[NDArray[np.int64], Rates]:
    """(int64[N], float64[N]): the bin of each image by the confidence in its predicted class, and 1 or 0 for right or
    wrong less that confidence. Bins are open below and closed above."""
    values = np.asarray(probabilities, np.float64)
    confidence = values.max(axis=1)
    right = predicted_classes(values) == np.asarray(labels, np.int64)
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    return place, right - confidence


def ece(labels: ArrayLike, probabilities: ArrayLike, bins: int = CALIBRATION_BINS) -> float:
    """Expected calibration error: the mean, over images, of how far accuracy and confidence are apart in their bin
    (Guo et al. 2017, *On calibration of modern neural networks*, equation 3)."""
    place, gap = calibration_gaps(labels, probabilities, bins)
    return float(np.abs(np.bincount(place, gap, minlength=bins)).sum() / len(gap))


def agreement(first: ArrayLike, second: ArrayLike) -> float:
    """Fraction of images for which two models predict the same class, right or wrong."""
    one, other = _paired(first, second)
    return float(np.mean(one == other))


def summary(labels: ArrayLike, logits: ArrayLike) -> dict[str, float]:
    """The figures that ``evaluate`` prints, by name; ``top5`` only where there are more than five classes, and
    ``auroc`` only where there are images of more than one."""
    values = np.asarray(logits)
    matrix = confusion(labels, predicted_classes(values), values.shape[1])
    figures = {"top1": float(np.trace(matrix) / matrix.sum())}
    if values.shape[1] > 5:
        figures["top5"] = topk(labels, values, 5)
    likely = softmax(values.astype(np.float64))
    figures |= {
        "macro_f1": macro_f1(matrix),
        "weighted_f1": weighted_f1(matrix),
        "balanced_accuracy": balanced_accuracy(matrix),
    }
    if not np.isnan(area := auroc(labels, likely)):
        figures["auroc"] = area
    return figures | {"ece": ece(labels, likely)}


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
