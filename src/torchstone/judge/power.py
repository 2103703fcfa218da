"""How many images a claim needs, and which claims a test set of a given size can carry.

ψ is the share of images on which baseline and candidate differ in being right, δ the true drop, m the margin, all as
fractions. A pass at the one-sided level 1 - α has about 80 % power with N = ψ(z₁₋α + z₀.₈)²/(m - δ)² images. Where
nothing differs at all, Tango's bound is z²/(N + z²), so that N = z²(1 - m)/m images are the least that can show the
margin m, whatever the models do.

The formula is the usual normal approximation, with ψ for the variance under both hypotheses. Enumerating all outcomes
at α = 2.5 % gives the true power: 79 % at m = 0.5 and 76 % at m = 1.0 points for ψ = 2 %, 79 % at m = 1.0 for ψ = 5 %,
but 65 to 67 % where the margin is as large as the disagreement, for there only a handful of images speak.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from torchstone.core.values import Budget
from torchstone.judge import accuracy

POWER = 0.8
USUAL_DISAGREEMENT = 0.02
"""What quantised models typically show against their originals."""


def least_images(margin: float, level: float) -> int:
    """Images that show ``margin`` when the two models never differ."""
    z = NormalDist().inv_cdf(level)
    return math.ceil(z * z * (1 - margin) / margin)


def images_needed(margin: float, disagreement: float, drop: float, level: float) -> int | None:
    """Images of a test set that would show ``margin`` with about 80 % power, or None when no number helps (δ ≥ m)."""
    if drop >= margin:
        return None
    z = NormalDist().inv_cdf(level) + NormalDist().inv_cdf(POWER)
    return max(least_images(margin, level), math.ceil(disagreement * z * z / (margin - drop) ** 2))


def images_by_spread(images: int, reach: float, margin: float, drop: float, level: float) -> int | None:
    """Images of a test set that would show ``margin`` with about 80 % power, where the upper bound at ``level`` of
    ``images`` reaches ``reach`` beyond the estimate: the reach falls with the square root of the images. None when no
    number helps."""
    if drop >= margin:
        return None
    z = NormalDist().inv_cdf(level)
    return math.ceil(images * (max(reach, 0.0) * (1 + NormalDist().inv_cdf(POWER) / z) / (margin - drop)) ** 2)


def smallest_margin(images: int, disagreement: float, level: float) -> float:
    """The smallest margin that ``images`` can show: surely if nothing differs, else at about 80 % power."""
    z = NormalDist().inv_cdf(level)
    floor = z * z / (images + z * z)
    return min(1.0, max(floor, (z + NormalDist().inv_cdf(POWER)) * math.sqrt(disagreement / images)))


def foreseen(images: int, groups: NDArray[np.integer] | None, budget: Budget, look: int, level: float) -> list[str]:
    """What can be said of a look before it: which drop so many images can show, and what to do where that is not the
    budget's; ``groups`` are the numbers of the images' groups, None where each stands alone. Of other metrics than
    top-1 the level alone is known beforehand."""
    begun = f"look {look}, bounds at {100 * level:g} %"
    if budget.metric != "top1":
        return [begun]
    alone, what = images, f"{images:,} images"
    if groups is not None:
        agreed = np.zeros(images, np.bool_)
        alone = math.floor(images / accuracy.design_effect(agreed, agreed, groups))
        what += f" in {len(np.unique(groups)):,} groups, which may count as no more than {alone:,},"
    kind = "test images" if groups is None else "independent test images"
    advised = advice(alone, budget.max_drop / 100, level, kind)
    return [f"{begun}: {statement(alone, level, what)}", *([f"note: {advised}"] if advised else [])]


def statement(images: int, level: float, what: str | None = None) -> str:
    """Which drop of top-1 a test set of so many images can show, called ``what``."""
    agreed = 100 * smallest_margin(images, 0.0, level)
    usual = 100 * smallest_margin(images, USUAL_DISAGREEMENT, level)
    said = what or f"{images:,} images"
    return (
        f"this test set of {said} can show a drop of at most {agreed:.{_digits(agreed)}f} points "
        f"if the models agree perfectly, {usual:.{_digits(usual)}f} at {100 * USUAL_DISAGREEMENT:.0f} % disagreement"
    )


def advice(images: int, margin: float, level: float, what: str = "test images") -> str | None:
    """What to do when this test set cannot show ``margin`` (a fraction) even if nothing differs; None when it can."""
    least = least_images(margin, level)
    if images >= least:
        return None
    return (
        f"a margin of {100 * margin:g} points cannot be shown on {images:,} {what}, but of a candidate that is "
        f"better: even perfect agreement needs {least:,}; collect {least - images:,} more, or allow "
        f"{100 * smallest_margin(images, 0.0, level):.2f} points"
    )


def _digits(points: float) -> int:
    return 2 if points < 0.1 else 1
