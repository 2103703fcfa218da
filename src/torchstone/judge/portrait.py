"""Medians and the slowest hundredth of stored calls, with the proof of the latter."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchstone.core.verdict import CallTimes, Portrait

TAIL = 0.99


def summarised(table: Any, header: dict[str, Any], level: float) -> Portrait:
    """A portrait (``evaluate.portrait``) in numbers, with the p99's bound at the one-sided ``level``."""
    seen = {name: table[name].to_numpy() for name in ("threads", "batch", "ms")}
    kinds = np.asarray(table["kind"].to_list())
    times = []
    for threads, batch, kind in sorted(
        {*zip(seen["threads"].tolist(), seen["batch"].tolist(), kinds.tolist(), strict=True)}
    ):
        chosen = (seen["threads"] == threads) & (seen["batch"] == batch) & (kinds == kind)
        ms = np.sort(seen["ms"][chosen])
        times.append(
            CallTimes(
                threads=threads, batch=batch, kind=kind, calls=len(ms), median_ms=float(np.median(ms)),
                p99_ms=quantile(ms, TAIL), p99_upper_ms=upper_bound(ms, TAIL, level),
            )
        )  # fmt: skip
    return Portrait(times=tuple(times), peak_mb=header["peak_mb"], gzip_mb=header["gzip_mb"])


def quantile(ordered: NDArray[np.float64], share: float) -> float:
    """The smallest of the ordered values that at least ``share`` of them do not exceed."""
    return float(ordered[math.ceil(share * len(ordered)) - 1])


def upper_bound(ordered: NDArray[np.float64], share: float, level: float) -> float | None:
    """Upper bound of the quantile at the one-sided ``level``, whatever the distribution: the order statistic that fewer
    than ``share`` of the calls would lie below only with probability 1 - level (Conover 1999, section 3.2). None: too
    few values (of a p99 at 97.5 % fewer than 368)."""
    from scipy import stats

    rank = int(stats.binom.ppf(level, len(ordered), share)) + 1
    return float(ordered[rank - 1]) if rank <= len(ordered) else None
