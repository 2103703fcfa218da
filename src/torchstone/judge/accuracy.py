"""Paired accuracy: two models answer the same images, and only the images on which they differ speak.

Of ``n`` images, ``lost`` are right in the baseline and wrong in the candidate, ``gained`` the other way round; the drop
of top-1 is (lost - gained) / n. Its bound is the score bound of Tango (1998), *Equivalence test and confidence interval
for the difference in proportions for the paired-sample design*, Statistics in Medicine 17:891-908: the largest drop
that the score test at the given level would not reject. Unlike Wald's, it keeps its level when few images differ, and
says something when none does.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from torchstone.core.errors import ArtifactError
from torchstone.core.values import Part
from torchstone.core.verdict import AccuracyResult
from torchstone.evaluate import metrics


class Answers(Protocol):
    """What is needed of stored predictions (``evaluate.predict.Predictions``)."""

    @property
    def items(self) -> Any: ...

    @property
    def labels(self) -> NDArray[Any]: ...

    @property
    def scores(self) -> NDArray[Any]: ...


def restricted_gain(lost: int, gained: int, n: int, drop: float) -> float:
    """Maximum-likelihood probability of a gained image when the true drop is ``drop`` ≥ 0 (Tango 1998, section 2).

    It is the root in [0, (1 - drop)/2] of 2n q² - b q - gained·drop·(1 - drop) = 0 with
    b = lost + gained - (2n - lost + gained)·drop, taken in the form that does not subtract nearly equal numbers.
    """
    b = lost + gained - (2 * n - lost + gained) * drop
    c = gained * drop * (1 - drop)
    root = (b * b + 8 * n * c) ** 0.5
    if b >= 0:
        return (b + root) / (4 * n)
    return 2 * c / (root - b)


def score(lost: int, gained: int, n: int, drop: float) -> float:
    """Tango's score statistic for a true drop in (-1, 1): standard normal if that is the truth, falling in ``drop``."""
    if drop < 0:
        return -score(gained, lost, n, -drop)
    variance = n * (2 * restricted_gain(lost, gained, n, drop) + drop * (1 - drop))
    distance = lost - gained - n * drop
    if variance <= 0:  # only at drop = 0 when nothing differs
        return 0.0
    return distance / variance**0.5


def upper_bound(lost: int, gained: int, n: int, level: float) -> float:
    """One-sided upper bound, at confidence ``level``, of the drop as a fraction in -1..1.

    With nothing lost or gained it is z²/(n + z²); with everything lost it is 1. Found by bisection: the statistic falls
    in the drop and is never evaluated at the ends, where its variance can vanish.
    """
    if not (n > 0 and lost >= 0 and gained >= 0 and lost + gained <= n):
        raise ValueError(f"counts must be 0 ≤ lost + gained ≤ n with n > 0, got {lost} and {gained} of {n}")
    if not 0.5 < level < 1:
        raise ValueError(f"level must lie between 0.5 and 1, got {level}")
    z = NormalDist().inv_cdf(level)
    low, high = (lost - gained) / n, 1.0
    while low < (middle := (low + high) / 2) < high:
        if score(lost, gained, n, middle) >= -z:
            low = middle
        else:
            high = middle
    return high


def lower_bound(lost: int, gained: int, n: int, level: float) -> float:
    """One-sided lower bound of the drop: the upper bound of the gain, seen from the other side."""
    return -upper_bound(gained, lost, n, level)


def compare(
    part: Part, baseline: Answers, candidate: Answers, classes: tuple[str, ...], level: float
) -> AccuracyResult:
    """Both models on one part, with the bounds of the drop at the one-sided ``level``.

    Raises an ArtifactError unless both answered the same items, in the same order, with the same labels and classes.
    """
    _same_questions(part, baseline, candidate, classes)
    labels = np.asarray(baseline.labels, np.int64)
    before, after = metrics.predicted_classes(baseline.scores), metrics.predicted_classes(candidate.scores)
    right, still_right = before == labels, after == labels
    n = len(labels)
    lost, gained = int((right & ~still_right).sum()), int((~right & still_right).sum())
    worst_class, worst_drop = _worst_class(labels, before, after, classes)
    return AccuracyResult(
        part=part,
        images=n,
        baseline_top1=100 * int(right.sum()) / n,
        top1=100 * int(still_right.sum()) / n,
        lost=lost,
        gained=gained,
        drop=100 * (lost - gained) / n,
        drop_upper=100 * upper_bound(lost, gained, n, level),
        drop_lower=100 * lower_bound(lost, gained, n, level),
        agreement=100 * metrics.agreement(before, after),
        worst_class=worst_class,
        worst_class_drop=worst_drop,
    )


def _same_questions(part: Part, baseline: Answers, candidate: Answers, classes: tuple[str, ...]) -> None:
    hint = "delete the evidence of both and type the same command again"
    if not len(baseline.labels):
        raise ArtifactError(f"the {part} predictions hold no images", hint=hint)
    if not np.array_equal(np.asarray(baseline.items), np.asarray(candidate.items)):
        raise ArtifactError(
            f"baseline and candidate did not answer the same {part} images in the same order", hint=hint
        )
    if not np.array_equal(baseline.labels, candidate.labels):
        raise ArtifactError(f"the {part} labels of baseline and candidate differ", hint=hint)
    for answers in (baseline, candidate):
        if answers.scores.shape != (len(baseline.labels), len(classes)):
            raise ArtifactError(
                f"{part} scores have the shape {answers.scores.shape}, not {(len(baseline.labels), len(classes))}",
                hint=hint,
            )
        if not np.isfinite(answers.scores).all():
            raise ArtifactError(
                f"{part} scores hold NaN or infinity", hint="the model is numerically broken; build it in f32"
            )
    if not (np.min(baseline.labels) >= 0 and np.max(baseline.labels) < len(classes)):
        raise ArtifactError(f"{part} labels name a class that the model does not have", hint=hint)


def _worst_class(
    labels: NDArray[np.int64], before: NDArray[np.int64], after: NDArray[np.int64], classes: tuple[str, ...]
) -> tuple[str | None, float]:
    """The class whose recall falls most, and by how many points; (None, 0.0) when none falls."""
    count = len(classes)
    falls = metrics.recall(metrics.confusion(labels, before, count)) - metrics.recall(
        metrics.confusion(labels, after, count)
    )
    worst = int(np.nanargmax(falls))
    return (classes[worst], 100 * float(falls[worst])) if falls[worst] > 0 else (None, 0.0)
