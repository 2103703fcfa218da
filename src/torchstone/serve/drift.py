"""Whether what is asked of a model still looks like what it was chosen on: windows of images against the bundle's
reference. numpy and the standard library alone.

How much a quantity has moved is told by the population stability index (PSI) over tenths of the reference; whether that
can be chance, by a two-sample test: Kolmogorov and Smirnov's for numbers, chi-square for the predicted classes. There
is an alarm where a quantity has moved by ``MOVED`` at least and its test, Bonferroni's correction for the number of
quantities included, would say so by chance in one window of ten thousand (``LEVEL``). Windows do not overlap, and each
is tested once, when it is full: so this rate holds whatever the quantities have to do with each other, however often
one looks. It supposes images that have nothing to do with each other: the frames of a video are one image, many times.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from torchstone.export.reference import Reference

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEVEL = 1e-4
"""Share of windows that raise an alarm although nothing has changed, at most."""
MOVED = 0.1
"""PSI from which a change is one that matters; what is usually said: below 0.1 none, from 0.25 on a large one."""
BINS = 10
FEWEST = 20
"""Images of a quantity, on either side, below which nothing is said of it."""
EXPECTED = 10
"""Images of a class that a chi-square test takes by itself; rarer classes are put together."""
CLASS = "class"


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """One quantity of a window."""

    quantity: str
    psi: float
    by_chance: float
    """What PSI is on average where nothing has changed, for as many images."""
    p_value: float
    images: int
    alarm: bool
    reference: float | None
    """Its median in the reference; None for the class."""
    window: float | None
    """Its median in the window."""

    @property
    def row(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


def compare(reference: Reference, window: NDArray[np.float32], level: float = LEVEL) -> list[Moved]:
    """Every quantity of ``window``, float32[n, columns] in the reference's order, NaN for what was not measured."""
    found: list[Moved] = []
    for column, name in enumerate(reference.columns):
        before = _there(reference.values[:, column])
        now = _there(window[:, column])
        if min(len(before), len(now)) < FEWEST:
            continue
        if name == CLASS:
            counts = _by_class(before, now)
            index, p_value = psi(*counts), chi_square(*counts)
            bins, medians = counts.shape[1], (None, None)
        else:
            counts = _by_tenths(before, now)
            index, p_value = psi(*counts), kolmogorov_smirnov(before, now)
            bins, medians = counts.shape[1], (float(np.median(before)), float(np.median(now)))
        alarm = p_value < level / len(reference.columns) and index >= MOVED
        by_chance = (bins - 1) * (1 / len(before) + 1 / len(now))
        found.append(
            Moved(
                quantity=name, psi=index, by_chance=by_chance, p_value=p_value, images=len(now), alarm=alarm,
                reference=medians[0], window=medians[1],
            )
        )  # fmt: skip
    return found


def psi(before: NDArray[np.float64], now: NDArray[np.float64]) -> float:
    """Σ (q - p) · ln(q / p) over shares of two rows of counts, half an image added to each count."""
    p, q = ((counts + 0.5) / (counts + 0.5).sum() for counts in (before, now))
    return float(((q - p) * np.log(q / p)).sum())


def kolmogorov_smirnov(before: NDArray[np.float64], now: NDArray[np.float64]) -> float:
    """The two-sided p-value of the two-sample test: Kolmogorov's limit, with Stephens' correction (1970) for samples
    that are not large. Where values are equal it is too large, never too small."""
    both = np.concatenate([before, now])
    steps = [np.searchsorted(np.sort(one), both, side="right") / len(one) for one in (before, now)]
    distance = float(np.abs(steps[0] - steps[1]).max())
    root = math.sqrt(len(before) * len(now) / (len(before) + len(now)))
    return _kolmogorov((root + 0.12 + 0.11 / root) * distance)


def chi_square(before: NDArray[np.float64], now: NDArray[np.float64]) -> float:
    """The p-value of Pearson's test that two rows of counts come from the same shares."""
    table = np.stack([before, now])
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2:
        return 1.0
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    return upper_gamma((table.shape[1] - 1) / 2, float(((table - expected) ** 2 / expected).sum()) / 2)


def upper_gamma(shape: float, x: float) -> float:
    """The regularised upper incomplete gamma function Q(shape, x): its series below shape + 1, its continued fraction
    (in Lentz's way) above (Abramowitz and Stegun 6.5.29 and 6.5.31)."""
    if x <= 0:
        return 1.0
    scale = math.exp(shape * math.log(x) - x - math.lgamma(shape))
    if x < shape + 1:
        term = total = 1 / shape
        steps = 0
        while term > 1e-16 * total:
            steps += 1
            term *= x / (shape + steps)
            total += term
        return max(0.0, 1 - scale * total)
    tiny = 1e-300
    b = x + 1 - shape
    c, d = 1 / tiny, 1 / b
    result = d
    for step in range(1, 10_000):
        a = step * (shape - step)
        b += 2
        d = 1 / ((a * d + b) or tiny)
        c = (b + a / c) or tiny
        result *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return scale * result


def furthest(
    reference: Reference, window: NDArray[np.float32], ids: Sequence[str], most: int = 10
) -> list[dict[str, Any]]:
    """The images that lie furthest out, the furthest first: by the quantity that puts them there, and how many times
    the reference's spread (from its 10th to its 90th percentile) they are away from its median."""
    away = distances(reference, window)
    if not away.size:
        return []
    worst = np.nan_to_num(away, nan=-1.0)
    order = np.argsort(-worst.max(axis=1), kind="stable")[:most]
    found = []
    for row in order.tolist():
        column = int(worst[row].argmax())
        if worst[row, column] >= 0:
            found.append(
                {
                    "id": ids[row], "quantity": reference.columns[column], "value": float(window[row, column]),
                    "spreads": float(worst[row, column]),
                }
            )  # fmt: skip
    return found


def distances(reference: Reference, window: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32[n, columns but the class]: how many of the reference's spreads each value is away from its median."""
    columns = [column for column, name in enumerate(reference.columns) if name != CLASS]
    low, middle, high = np.nanpercentile(reference.values[:, columns], (10, 50, 90), axis=0)
    spread = np.maximum(high - low, 1e-3 * np.maximum(np.abs(middle), 1e-3))
    return (np.abs(window[:, columns] - middle) / spread).astype(np.float32)


def _there(values: NDArray[np.float32]) -> NDArray[np.float64]:
    return values[np.isfinite(values)].astype(np.float64)


def _by_tenths(before: NDArray[np.float64], now: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64[2, bins]: counts between the reference's tenths; a value that takes several tenths has a bin of its own,
    so that what is just below it is not counted with it."""
    tenths = np.quantile(before, np.linspace(0, 1, BINS + 1)[1:-1], method="inverted_cdf")
    values, times = np.unique(tenths, return_counts=True)
    edges = np.sort(np.concatenate([values, np.nextafter(values[times > 1], -np.inf)]))
    return np.stack(
        [np.bincount(np.searchsorted(edges, one, side="left"), minlength=len(edges) + 1) for one in (before, now)]
    ).astype(np.float64)


def _by_class(before: NDArray[np.float64], now: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64[2, groups]: counts by class, the rare ones together."""
    classes = int(max(before.max(), now.max())) + 1
    counts = np.stack([np.bincount(one.astype(np.int64), minlength=classes) for one in (before, now)]).astype(
        np.float64
    )
    smaller = min(len(before), len(now)) / (len(before) + len(now))
    rare = counts.sum(axis=0) * smaller < EXPECTED
    if not rare.any():
        return counts
    groups, rest = counts[:, ~rare], counts[:, rare].sum(axis=1, keepdims=True)
    if groups.shape[1] and rest.sum() * smaller < EXPECTED:  # even together they are few
        groups[:, [int(groups.sum(axis=0).argmin())]] += rest
        return groups
    return np.concatenate([groups, rest], axis=1)


def _kolmogorov(x: float) -> float:
    """P(K > x): 2 Σ (-1)ᵏ⁻¹ exp(-2 k² x²), or for small x the other series of the same function."""
    if x <= 0:
        return 1.0
    if x < 1.0:
        terms = [math.exp(-((2 * k - 1) ** 2) * math.pi**2 / (8 * x * x)) for k in range(1, 8)]
        return max(0.0, 1 - math.sqrt(2 * math.pi) / x * math.fsum(terms))
    return min(1.0, 2 * math.fsum((-1) ** (k - 1) * math.exp(-2 * (k * x) ** 2) for k in range(1, 20)))
