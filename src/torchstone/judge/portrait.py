"""Medians and the slowest hundredth of stored calls, with the proof of the latter."""

from __future__ import annotations

from typing import Any

import numpy as np

from torchstone.core.verdict import CallTimes, Portrait
from torchstone.judge import tail


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
                p99_ms=tail.quantile(ms, tail.SHARE), p99_upper_ms=tail.upper_bound(ms, tail.SHARE, level),
            )
        )  # fmt: skip
    return Portrait(times=tuple(times), peak_mb=header["peak_mb"], gzip_mb=header["gzip_mb"])
