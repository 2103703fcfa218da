"""The table's numbers are those of its calls."""

from __future__ import annotations

import numpy as np

from torchstone.core import tables
from torchstone.judge import portrait


def test_each_kind_has_its_own_numbers() -> None:
    draws = np.random.default_rng(0).gamma(4.0, 1.0, (3, 500))
    rows = [("model", 1, 1), ("request", 1, 1), ("model", 2, 32)]
    table = tables.frame(
        {
            "threads": [threads for _, threads, _ in rows for _ in range(500)],
            "batch": [batch for _, _, batch in rows for _ in range(500)],
            "kind": [kind for kind, _, _ in rows for _ in range(500)],
            "round": [0] * 1500,
            "ms": draws.ravel(),
        }
    )
    found = portrait.summarised(table, {"peak_mb": 100.0, "gzip_mb": 2.0}, 0.95)
    by_kind = {(one.kind, one.threads, one.batch): one for one in found.times}
    for number, key in enumerate(rows):
        assert by_kind[key].calls == 500
        assert by_kind[key].median_ms == np.median(draws[number])
        assert by_kind[key].p99_ms == np.sort(draws[number])[494]
        assert (by_kind[key].p99_upper_ms or 0) >= by_kind[key].p99_ms
