"""Evidence that may be looked at after every answer keeps its level, and its bounds say what its wealth says."""

from __future__ import annotations

import math
from itertools import pairwise

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from torchstone.judge import betting
from torchstone.judge.betting import PAIRED, Claim

CLAIMS: tuple[Claim, ...] = ("worse", "no worse")


def expected_wealth(pairs: int, chances: tuple[float, float, float], margin: float, claim: Claim) -> float:
    """The mean of the wealth over every outcome of so many pairs, each weighed with its probability."""
    total = 0.0
    for lost in range(pairs + 1):
        for gained in range(pairs + 1 - lost):
            counts = (lost, gained, pairs - lost - gained)
            ways = math.factorial(pairs) / math.prod(map(math.factorial, counts))
            chance = ways * math.prod(one**count for one, count in zip(chances, counts, strict=True))
            total += chance * math.exp(float(betting.log_wealth(PAIRED, counts, margin, claim)))
    return total


@pytest.mark.parametrize("margin", [0.0, 0.005, 0.1])
@pytest.mark.parametrize("claim", CLAIMS)
def test_nobody_is_expected_to_win_where_the_drop_is_the_margin(claim: Claim, margin: float) -> None:
    chances = betting.chances_of(0.3, margin)
    assert expected_wealth(25, chances, margin, claim) == pytest.approx(1.0)


@pytest.mark.parametrize(("claim", "drop"), [("worse", -0.1), ("worse", 0.0), ("no worse", 0.05), ("no worse", 0.3)])
def test_who_bets_against_the_truth_loses(claim: Claim, drop: float) -> None:
    assert expected_wealth(25, betting.chances_of(0.3, drop), 0.01, claim) < 1.0


@hypothesis.given(st.lists(st.integers(0, 60), min_size=3, max_size=3), st.floats(0.001, 0.2), st.sampled_from(CLAIMS))
def test_wealth_is_the_mean_of_purses_that_are_multiplied_one_after_the_other(
    counts: list[int], margin: float, claim: Claim
) -> None:
    answers = np.repeat(PAIRED, counts)
    np.random.default_rng(0).shuffle(answers)
    purses = np.zeros(betting.PURSES)
    for x in answers:
        stake = betting.FRACTIONS / (1 + margin if claim == "worse" else 1 - margin)
        purses += np.log(1 + stake * (x - margin) * (1 if claim == "worse" else -1))
    assert betting.log_wealth(PAIRED, counts, margin, claim) == pytest.approx(betting.log_mean(purses), abs=1e-8)


def test_before_anything_is_seen_nothing_is_won() -> None:
    assert betting.log_wealth(PAIRED, [0, 0, 0], 0.01, "worse") == pytest.approx(0)
    assert betting.lower_bound(PAIRED, [0, 0, 0], 0.05) == -1
    assert betting.upper_bound(PAIRED, [0, 0, 0], 0.05) == 1


@hypothesis.given(st.lists(st.integers(0, 3_000), min_size=3, max_size=3).filter(any), st.sampled_from([0.01, 0.05]))
def test_a_bound_is_where_the_wealth_crosses_its_threshold(counts: list[int], alpha: float) -> None:
    low, high = betting.lower_bound(PAIRED, counts, alpha), betting.upper_bound(PAIRED, counts, alpha)
    mean = (counts[0] - counts[1]) / sum(counts)
    assert low <= mean <= high
    sides: tuple[tuple[float, Claim], ...] = ((low, "worse"), (high, "no worse"))
    for margin, claim in sides:
        if abs(margin) < 0.999:
            assert betting.log_wealth(PAIRED, counts, margin, claim) == pytest.approx(
                betting.threshold(alpha), abs=1e-6
            )


def test_bounds_close_in_on_the_drop() -> None:
    seen = [np.array([15, 5, 980]) * times for times in (1, 10, 100, 1_000)]
    lows = [betting.lower_bound(PAIRED, counts, 0.05) for counts in seen]
    highs = [betting.upper_bound(PAIRED, counts, 0.05) for counts in seen]
    assert all(one < two for one, two in pairwise(lows))
    assert all(one > two for one, two in pairwise(highs))
    assert 0.009 < lows[-1] < 0.01 < highs[-1] < 0.011


@pytest.mark.parametrize("claim", CLAIMS)
def test_watched_without_end_the_margin_itself_is_rarely_claimed_to_be_something_else(claim: Claim) -> None:
    """At 5 % one expects at most 25 of 500; more than 40 would come once in a thousand times."""
    rng = np.random.default_rng(3)
    crossed = 0
    for _ in range(500):
        x = rng.choice(PAIRED, 4_000, p=betting.chances_of(0.1, 0.01))
        counts = np.cumsum(x[:, None] == PAIRED, axis=0)
        crossed += bool((betting.log_wealth(PAIRED, counts[::4], 0.01, claim) >= betting.threshold(0.05)).any())
    assert 0 < crossed <= 40


def test_a_candidate_two_points_worse_is_caught_after_about_a_thousand_pairs() -> None:
    rng = np.random.default_rng(5)
    found = []
    for _ in range(200):
        x = rng.choice(PAIRED, 6_000, p=betting.chances_of(0.04, 0.02))
        wealth = betting.log_wealth(PAIRED, np.cumsum(x[:, None] == PAIRED, axis=0), 0.005, "worse")
        over = wealth >= betting.threshold(0.04)
        found.append(over.argmax() + 1 if over.any() else math.inf)
    assert np.median(found) <= 1_200


def test_what_is_foreseen_is_what_the_expected_counts_show() -> None:
    chances = betting.chances_of(0.04, 0.02)
    number = betting.needed(PAIRED, chances, 0.005, 0.04, "worse")
    assert number is not None
    wealth = [betting.log_wealth(PAIRED, np.array(chances) * n, 0.005, "worse") for n in (number - 1, number)]
    assert wealth[0] < betting.threshold(0.04) <= wealth[1]
    assert betting.needed(PAIRED, betting.chances_of(0.04, 0.005), 0.005, 0.04, "no worse") is None


def test_values_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="margin must lie between"):
        betting.log_wealth(PAIRED, [1, 0, 0], 1.0, "worse")
    with pytest.raises(ValueError, match="alpha must lie between"):
        betting.threshold(0)
    with pytest.raises(ValueError, match="cannot come of a disagreement"):
        betting.chances_of(0.01, 0.02)
