"""Evidence that may be looked at after every answer: e-processes by betting on differences X in [-1, 1].

A candidate runs beside the stable model. Of each labelled pair X = right(stable) - right(candidate), which is 1, 0 or
-1, and the drop is the mean of X. Against the claim 'the drop is at most m' one bets: of a purse that holds 1, a share
of what may be lost is staked again and again on 'more'. A purse that stakes the fraction f of its most grows by

    1 + f (X - m)/(1 + m)     against 'the drop is at most m'  (to show 'worse')
    1 - f (X - m)/(1 - m)     against 'the drop is at least m' (to show 'no worse')

and is never empty for f < 1. If the claim that is bet against holds, no purse is expected to grow, whenever one looks:
by Ville's inequality the chance that it ever reaches 1/α is at most α. Nothing is assumed of the answers but that,
given the past, the mean of the next X keeps to that claim; they need not be alike. (Waudby-Smith & Ramdas 2024,
*Estimating means of bounded random variables by betting*, JRSS B 86:1-27; Shafer 2021, *Testing by betting*, JRSS A
184:407-431.)

The best f depends on what nobody knows: about (drop - m)/(share of answers that differ). The money is therefore put
into PURSES equal purses with their own f each and summed, after Cover's universal portfolio. The f are the quantiles of
the density 2(1 - f), since large fractions are right only where nearly every difference is harm. Why so: online Newton
steps need more answers in every case that was tried, and plug-in bets more in three of five, mostly where harm is small
beside the disagreement (``benchmarks/rollouts.py --compare``); fixed fractions make the wealth a function of how often
each X came, whatever the order in which late labels arrive; and those counts are all that must be stored to go on after
a restart, or to check a decision.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Claim = Literal["worse", "no worse"]
"""What is shown when the wealth reaches 1/α: that the drop is above the margin, or that it is below."""

PURSES = 64
FRACTIONS: NDArray[np.float64] = 1 - np.sqrt(1 - (np.arange(PURSES) + 0.5) / PURSES)
"""Of each purse, the stake as a fraction of the largest that cannot be lost whole: float64[PURSES] in (0, 1)."""

PAIRED = np.array([1.0, -1.0, 0.0])
"""X of a pair that only the stable model answered rightly, only the candidate, both or none."""

MOST = 10_000_000
"""Pairs beyond which ``needed`` says that no number helps."""


def growth(values: ArrayLike, margin: float, claim: Claim) -> NDArray[np.float64]:
    """The logarithm of what each purse is multiplied by: float64[PURSES, V] for differences ``values`` [V] in [-1, 1].

    ``margin`` is a fraction in (-1, 1).
    """
    if not -1 < margin < 1:
        raise ValueError(f"margin must lie between -1 and 1, got {margin}")
    distance = np.asarray(values, np.float64) - margin
    share = distance / (1 + margin) if claim == "worse" else -distance / (1 - margin)
    return np.log1p(FRACTIONS[:, None] * share)


def log_wealth(values: ArrayLike, counts: ArrayLike, margin: float, claim: Claim) -> NDArray[np.float64]:
    """Logarithm of the wealth after each difference ``values`` [V] came ``counts`` [..., V] times, float64[...].

    0 before anything is seen. The claim is shown at level α once this was ever at least -log α.
    """
    return log_mean(np.asarray(counts, np.float64) @ growth(values, margin, claim).T)


def log_mean(purses: NDArray[np.float64]) -> NDArray[np.float64]:
    """The logarithm of the mean over the last axis of what ``purses`` [..., PURSES] hold, given as logarithms."""
    top = purses.max(axis=-1, keepdims=True)
    return np.log(np.exp(purses - top).mean(axis=-1)) + top[..., 0]


def threshold(alpha: float) -> float:
    """What ``log_wealth`` must reach for a claim at level ``alpha``: -log α."""
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, got {alpha}")
    return -math.log(alpha)


def lower_bound(values: ArrayLike, counts: ArrayLike, alpha: float) -> float:
    """The largest margin m for which 'the drop is above m' is shown at ``alpha``; -1 if there is none.

    Right at all times at once: the chance that it ever lies above the mean of X is at most ``alpha``.
    """
    return _last(lambda margin: float(log_wealth(values, counts, margin, "worse")) >= threshold(alpha))


def upper_bound(values: ArrayLike, counts: ArrayLike, alpha: float) -> float:
    """The smallest margin m for which 'the drop is below m' is shown at ``alpha``; 1 if there is none."""
    return -lower_bound(-np.asarray(values, np.float64), counts, alpha)


def needed(values: ArrayLike, chances: ArrayLike, margin: float, alpha: float, claim: Claim) -> int | None:
    """About how many differences show ``claim`` if each of ``values`` comes with its chance: the number at which their
    expected counts reach the threshold. Half of all rollouts need less than about three quarters of it
    (``benchmarks/rollouts.py``). None: more than ``MOST``."""
    weights = np.asarray(chances, np.float64)

    def shown(number: float) -> bool:
        return float(log_wealth(values, number * weights, margin, claim)) >= threshold(alpha)

    high = 1
    while not shown(high):
        high *= 2
        if high > MOST:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if shown(middle) else (middle, high)
    return high


def chances_of(disagreement: float, drop: float) -> tuple[float, float, float]:
    """The chances of ``PAIRED`` where a share ``disagreement`` of the pairs differs in being right, and ``drop`` of all
    are lost on balance: |drop| ≤ disagreement ≤ 1."""
    if not abs(drop) <= disagreement <= 1:
        raise ValueError(f"a drop of {drop:g} cannot come of a disagreement of {disagreement:g}")
    return (disagreement + drop) / 2, (disagreement - drop) / 2, 1 - disagreement


def _last(holds: Any) -> float:
    """The supremum of the margins for which ``holds``: true below it, false above; -1 where it never is."""
    low, high = -1.0, 1.0
    for _ in range(48):
        middle = (low + high) / 2
        if holds(middle):
            low = middle
        else:
            high = middle
    return low
