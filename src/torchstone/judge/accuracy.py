"""Paired accuracy: two models answer the same images, and only the images on which they differ speak.

Of ``n`` images, ``lost`` are right in the baseline and wrong in the candidate, ``gained`` the other way round; the drop
of top-1 is (lost - gained) / n. Its bound is the score bound of Tango (1998), *Equivalence test and confidence interval
for the difference in proportions for the paired-sample design*, Statistics in Medicine 17:891-908: the largest drop
that the score test at the given level would not reject. Unlike Wald's, it keeps its level when few images differ, and
says something when none does.

Images of one group (a patient, a film) are not so many witnesses. There the counts are divided by the design effect
(Rao & Scott 1992, *A simple method for the analysis of clustered binary data*, Biometrics 48:577-585) before the same
bound is taken.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from torchstone.core.errors import ArtifactError
from torchstone.core.values import Part
from torchstone.core.verdict import AccuracyResult, Proof
from torchstone.evaluate import metrics

Counts = float | NDArray[Any]
SAME = 1e-12
"""Relative difference below which two divided counts are one."""


class Answers(Protocol):
    """What is needed of stored predictions (``evaluate.predict.Predictions``)."""

    @property
    def items(self) -> Any: ...

    @property
    def labels(self) -> NDArray[Any]: ...

    @property
    def scores(self) -> NDArray[Any]: ...


def restricted_gain(lost: Counts, gained: Counts, n: Counts, drop: Counts) -> NDArray[np.float64]:
    """Maximum-likelihood probability of a gained image when the true drop is ``drop`` ≥ 0 (Tango 1998, section 2).

    It is the root in [0, (1 - drop)/2] of 2n q² - b q - gained·drop·(1 - drop) = 0 with
    b = lost + gained - (2n - lost + gained)·drop, taken in the form that does not subtract nearly equal numbers.
    """
    b = np.asarray(lost + gained - (2 * n - lost + gained) * drop, np.float64)
    c = gained * drop * (1 - drop)
    root = np.sqrt(b * b + 8 * n * c)
    return np.where(b >= 0, (b + root) / (4 * n), 2 * c / np.where(b >= 0, 1, root - b))


def score(lost: Counts, gained: Counts, n: Counts, drop: Counts) -> NDArray[np.float64]:
    """Tango's score statistic for a true drop in (-1, 1): standard normal if that is the truth, falling in ``drop``.

    Counts and drops may be arrays, which are broadcast; 0 at drop = 0 when nothing differs.
    """
    mirrored, size = np.less(drop, 0), np.abs(drop)
    one, other = np.where(mirrored, gained, lost), np.where(mirrored, lost, gained)
    variance = n * (2 * restricted_gain(one, other, n, size) + size * (1 - size))
    distance = (one - other - n * size) / np.sqrt(np.where(variance > 0, variance, np.inf))
    return np.where(mirrored, -distance, distance)


def upper_bounds(lost: Counts, gained: Counts, n: Counts, level: float) -> NDArray[np.float64]:
    """One-sided upper bounds, at confidence ``level``, of drops as fractions in -1..1, for broadcast counts.

    With nothing lost or gained it is z²/(n + z²); with everything lost it is 1. Found by bisection: the statistic falls
    in the drop and is never evaluated at the ends, where its variance can vanish. Counts need not be whole: images that
    depend on each other count as fewer (``design_effect``).
    """
    lost, gained, n = (np.asarray(count, np.float64) for count in np.broadcast_arrays(lost, gained, n))
    bad = ~((n > 0) & (lost >= 0) & (gained >= 0) & (lost + gained <= n * (1 + SAME)))
    if bad.any():
        first = tuple(float(count[bad][0]) for count in (lost, gained, n))
        raise ValueError(
            f"counts must be 0 ≤ lost + gained ≤ n with n > 0, got {first[0]:g} and {first[1]:g} of {first[2]:g}"
        )
    if not 0.5 < level < 1:
        raise ValueError(f"level must lie between 0.5 and 1, got {level}")
    z = NormalDist().inv_cdf(level)
    low, high = (lost - gained) / n, np.ones(n.shape)
    while ((low < (middle := (low + high) / 2)) & (middle < high)).any():
        beyond = score(lost, gained, n, middle) < -z
        low, high = np.where(beyond, low, middle), np.where(beyond, middle, high)
    return high


def upper_bound(lost: float, gained: float, n: float, level: float) -> float:
    """The bound of one pair of models (``upper_bounds``)."""
    return float(upper_bounds(lost, gained, n, level))


def lower_bound(lost: float, gained: float, n: float, level: float) -> float:
    """One-sided lower bound of the drop: the upper bound of the gain, seen from the other side."""
    return -upper_bound(gained, lost, n, level)


def design_effect(lost: NDArray[np.bool_], gained: NDArray[np.bool_], groups: NDArray[np.integer]) -> float:
    """How many images of a group count as one, ≥ 1: the variance of the drop with groups drawn as wholes, over its
    variance with images drawn one by one.

    Where few images differ their variance says little, so that one more is added, which is lost with the whole of its
    group. Tango's bound of counts that are divided by this is never narrower than Tango's. By simulation
    (``benchmarks/judge_coverage.py``: 12 to 150 groups of 10, or of 2 to 42 images, their correlation 0 to 0.9)
    false passes at a drop equal to the margin are at most 2.8 % at a nominal 2.5 %; by Tango's bound alone up to 63 %.
    """
    difference = lost.astype(np.float64) - gained
    own = np.unique(groups, return_inverse=True)[1].ravel()
    sizes, n = np.bincount(own).astype(np.float64), len(own)
    count = len(sizes)
    whole = float((sizes**2).sum() / n)  # images of the group that an average image belongs to
    if count == n:
        return 1.0
    if count == 1:
        return whole
    within = np.bincount(own, difference) - difference.mean() * sizes
    by_group = float((within**2).sum()) * count / (count - 1)
    by_image = float(((difference - difference.mean()) ** 2).sum())
    return max(1.0, (by_group + whole) / (by_image + 1))


def compare(
    part: Part,
    baseline: Answers,
    candidate: Answers,
    classes: tuple[str, ...],
    level: float,
    groups: NDArray[np.integer] | None = None,
) -> AccuracyResult:
    """Both models on one part, with the bounds of the drop at the one-sided ``level``.

    ``groups`` has a number for each image; those with the same number depend on each other. Raises an ArtifactError
    unless both answered the same items, in the same order, with the same labels and classes.
    """
    _same_questions(part, baseline, candidate, classes)
    labels = np.asarray(baseline.labels, np.int64)
    before, after = metrics.predicted_classes(baseline.scores), metrics.predicted_classes(candidate.scores)
    right, still_right = before == labels, after == labels
    n = len(labels)
    lost, gained = int((right & ~still_right).sum()), int((~right & still_right).sum())
    effect = 1.0 if groups is None else design_effect(right & ~still_right, ~right & still_right, groups)
    upper = 100 * upper_bound(lost / effect, gained / effect, n / effect, level)
    lower = 100 * lower_bound(lost / effect, gained / effect, n / effect, level)
    top1 = 100 * int(right.sum()) / n
    return AccuracyResult(
        part=part,
        images=n,
        baseline_top1=top1,
        top1=100 * int(still_right.sum()) / n,
        lost=lost,
        gained=gained,
        drop=100 * (lost - gained) / n,
        drop_upper=upper,
        drop_lower=lower,
        groups=None if groups is None else len(np.unique(groups)),
        design_effect=effect,
        keeps_99=keeps(0.99, top1, lower, upper),
        agreement=100 * metrics.agreement(before, after),
    )


def of_itself(result: AccuracyResult) -> AccuracyResult:
    """What was compared is one model: it loses nothing against itself, so that there is nothing to bound."""
    return result.model_copy(update={"drop_upper": 0.0, "drop_lower": 0.0, "keeps_99": "proven"})


def at_least(wrong: NDArray[np.bool_], level: float, groups: NDArray[np.integer] | None = None) -> float:
    """Lower bound of one model's top-1 (a fraction) at the one-sided ``level``, by which images were ``wrong``: what it
    loses against a model that is always right, whose score bound is Wilson's (1927)."""
    lost, n = int(wrong.sum()), len(wrong)
    effect = 1.0 if groups is None else design_effect(wrong, np.zeros(n, np.bool_), groups)
    return 1 - upper_bound(lost / effect, 0.0, n / effect, level)


def keeps(share: float, baseline_top1: float, drop_lower: float, drop_upper: float) -> Proof:
    """Whether the candidate keeps this share of the baseline's accuracy, as MLPerf asks for 99 %: by the bounds of the
    drop, with the baseline's accuracy on these images taken as known."""
    allowed = (1 - share) * baseline_top1
    if drop_upper <= allowed:
        return "proven"
    return "refuted" if drop_lower > allowed else "open"


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
