"""Quantiles of latencies, and what is proven of them whatever their distribution.

Whether the p99 keeps a limit is a question about a share: is at most one call in a hundred slower? Of n calls the
number that are slower is binomial, so few enough of them prove it, at a stated level. MLPerf's load generator stops by
the same test (its 'early stopping', at 99 %). It takes the calls to be independent, as that does: a pause of the server
makes many neighbours slow at once, so what is proven is true of sessions in which pauses come as often as in this one.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

SHARE = 0.99
"""Of the calls: the quantile that is asked for."""
MOST = 100_000_000
"""Calls beyond which nobody goes on."""


def quantile(ordered: NDArray[np.float64], share: float) -> float:
    """The smallest of the ordered values that at least ``share`` of them do not exceed."""
    return float(ordered[math.ceil(share * len(ordered)) - 1])


def upper_bound(ordered: NDArray[np.float64], share: float, level: float) -> float | None:
    """Upper bound of the quantile at the one-sided ``level``: the order statistic that fewer than ``share`` of the
    calls would lie below only with probability 1 - level (Conover 1999, section 3.2). None: too few values (of a p99 at
    97.5 % fewer than 368)."""
    spare = slower_allowed(len(ordered), share, level)
    return None if spare < 0 else float(ordered[len(ordered) - 1 - spare])


def slower_allowed(count: int, share: float, level: float) -> int:
    """How many of ``count`` calls may be slower than a limit that is still proven to be kept by ``share`` of all calls;
    -1 where none may be, and even that proves nothing."""
    return int(np.searchsorted(_at_most(count, 1 - share), 1 - level, side="right")) - 1


def proven(slower: int, count: int, share: float, level: float) -> bool | None:
    """Whether, ``slower`` of ``count`` calls having exceeded a limit, the quantile of all keeps it (True), exceeds it
    (False), each at the one-sided ``level``, or nothing is proven (None)."""
    if slower <= slower_allowed(count, share, level):
        return True
    below = _at_most(count, 1 - share)
    more = 1.0 - (below[slower - 1] if slower <= len(below) else 1.0) if slower else 1.0
    return False if more <= 1 - level else None


def calls_needed(slower: int, count: int, share: float, level: float) -> int | None:
    """Calls in all that would prove the limit to be kept, if as many of them are slower as of those so far; None where
    that many never will."""
    rate = slower / count if count else 0.0
    if rate >= 1 - share:
        return None

    def enough(calls: int) -> bool:
        return math.floor(rate * calls) <= slower_allowed(calls, share, level)

    most = max(count, 1)
    while not enough(most):
        most *= 2
        if most > MOST:
            return None
    least = most // 2
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (least, middle) if enough(middle) else (middle, most)
    return most


def _at_most(count: int, chance: float) -> NDArray[np.float64]:
    """P(at most k of ``count``), for k from 0 to where it is 1, each of them happening with ``chance``."""
    mean = count * chance
    most = min(count, math.ceil(mean + 12 * math.sqrt(mean + 1) + 30))
    k = np.arange(1, most + 1)
    steps = np.log((count - k + 1) / k) + math.log(chance / (1 - chance))
    logs = count * math.log1p(-chance) + np.concatenate([[0.0], np.cumsum(steps)])
    return np.cumsum(np.exp(logs))
