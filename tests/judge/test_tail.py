"""The bounds of quantiles and the proof of a p99, against scipy's binomial distribution and by enumeration."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from torchstone.judge import tail


@pytest.mark.parametrize("level", [0.95, 0.975, 0.99])
@pytest.mark.parametrize("calls", [460, 1000, 2500, 60_000, 5_000_000])
@pytest.mark.parametrize("share", [0.5, 0.99, 0.999])
def test_the_bound_is_the_smallest_that_keeps_its_level(calls: int, level: float, share: float) -> None:
    """P(order statistic r ≥ the quantile) is that of fewer than r calls below it, exactly."""
    spare = tail.slower_allowed(calls, share, level)
    rank = calls - spare
    if spare < 0:
        assert share**calls > 1 - level
    else:
        assert stats.binom.cdf(rank - 1, calls, share) >= level > stats.binom.cdf(rank - 2, calls, share)


def test_too_few_calls_have_no_bound() -> None:
    assert tail.upper_bound(np.arange(367.0), 0.99, 0.975) is None
    assert tail.upper_bound(np.arange(368.0), 0.99, 0.975) == 367
    assert tail.upper_bound(np.arange(0.0), 0.99, 0.975) is None


def test_the_first_numbers_are_mlperfs() -> None:
    """Its load generator asks of a p99 for 662 queries where one may be slow, of a p90 for 64 (at 99 %)."""
    for share, calls in ((0.99, 662), (0.9, 64)):
        assert tail.slower_allowed(calls, share, 0.99) == 1
        assert tail.slower_allowed(calls - 1, share, 0.99) == 0


@pytest.mark.parametrize("count", [1, 100, 458, 459, 1000, 12_000])
def test_a_proof_is_wrong_as_rarely_as_it_says(count: int) -> None:
    """At the edge, where exactly 1 % of all calls are slower, by every number of slower ones there can be."""
    slower = np.arange(min(count, 400) + 1)
    chances = stats.binom.pmf(slower, count, 0.01)
    proofs = [tail.proven(int(one), count, 0.99, 0.99) for one in slower]
    for claim in (True, False):
        assert sum(chance for chance, proof in zip(chances, proofs, strict=True) if proof is claim) <= 0.01 + 1e-9
    order = [{True: 0, None: 1, False: 2}[proof] for proof in proofs]
    assert order == sorted(order)
    assert proofs[0] is (True if count >= 459 else None)


def test_how_many_more_calls_would_tell() -> None:
    assert tail.calls_needed(0, 0, 0.99, 0.99) == 459
    assert tail.calls_needed(0, 400, 0.99, 0.99) == 459
    assert tail.calls_needed(10, 1000, 0.99, 0.99) is None  # just 1 %: more of the same proves nothing
    needed = tail.calls_needed(5, 1000, 0.99, 0.99)
    assert needed is not None
    assert 1000 < needed < 5000
    assert tail.proven(needed // 200, needed, 0.99, 0.99)
