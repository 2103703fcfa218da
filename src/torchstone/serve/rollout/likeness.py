"""Whether what is labelled looks like all that was answered. Labels that somebody has chosen prove nothing of the rest.

A trait is counted that is known of every answer, labelled or not: in shadow mode that the two models differ, in a
canary that the candidate answered. Where labels are drawn without a look at the answers, its share among the labelled
is its share among all. Both shares have bounds that are right at all times at once (``judge.betting``); where these do
not overlap, labels were not drawn so. An honest sample is ever suspected with at most ``LEVEL``, however often one
looks; the bounds take four parts of it, a lower and an upper one of either share.

It is a check of what was claimed, no proof of it: a choice that does not touch the trait is not noticed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from torchstone.judge import betting

LEVEL = 0.01


def compared(labelled: tuple[int, int], everything: tuple[int, int]) -> dict[str, Any]:
    """Of (with the trait, all) among the labelled and among all answers: both, their bounds, and whether they agree."""
    low, high = _bounds(*labelled)
    low_all, high_all = _bounds(*everything)
    return {
        "labelled": list(labelled),
        "all": list(everything),
        "labelled_bounds": [low, high],
        "all_bounds": [low_all, high_all],
        "alike": low <= high_all and low_all <= high,
    }


def _bounds(found: int, total: int) -> tuple[float, float]:
    """Of a share. Yes is 1 and no is -1, so that a purse may stake all that a share near 0 or 1 allows."""
    values, counts = np.array([1.0, -1.0]), np.array([found, total - found], np.float64)
    low, high = (bound(values, counts, LEVEL / 4) for bound in (betting.lower_bound, betting.upper_bound))
    return (low + 1) / 2, (high + 1) / 2
