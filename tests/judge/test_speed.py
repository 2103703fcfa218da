"""The exact bounds of the sign test: their levels, their coverage on a clock that drifts and stumbles, the control."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom
from stored_run import World

from torchstone.core.errors import ArtifactError
from torchstone.core.verdict import ControlResult
from torchstone.evaluate.timing import load_timings
from torchstone.judge import speed


def quartets(candidate: np.ndarray, rival: np.ndarray) -> speed.Quartets:
    return speed.Quartets(candidate=candidate, rival=rival, sessions=frozenset({"s"}))


def of_ratios(ratios: list[float]) -> speed.Quartets:
    values = np.array(ratios)[:, None] * np.ones((1, 2))
    return quartets(np.ones_like(values), values)


@given(st.integers(0, 200), st.sampled_from([0.9, 0.95, 0.975, 0.9875, 0.9995]))
def test_the_rank_is_the_largest_that_keeps_its_level(count: int, level: float) -> None:
    k = speed.rank(count, level)
    alpha = 1 - level
    assert k == 0 or binom.cdf(k - 1, count, 0.5) <= alpha + 1e-9
    assert binom.cdf(k, count, 0.5) > alpha - 1e-9


def test_sixteen_quartets_give_a_bound_at_every_level_that_is_needed() -> None:
    looks = [1 - 0.05 / 2**number for number in range(1, 9)]
    assert [speed.rank(16, level) for level in looks] == [4, 4, 3, 3, 2, 2, 2, 1]
    assert speed.rank(16, 0.975) == 4  # the control's 95 %
    assert speed.rank(16, 0.9995) == 2  # the control's 99.9 %
    assert speed.rank(5, 0.975) == 0  # too few for any


def test_the_bounds_are_order_statistics_of_the_quartets() -> None:
    found = speed.compare(of_ratios([1 + number / 100 for number in range(16)]), "torch", "id", 0.975)
    assert found is not None
    assert found.lower == pytest.approx(1.03)
    assert found.upper == pytest.approx(1.12)
    assert found.ratio == pytest.approx(math.sqrt(1.07 * 1.08))


def test_too_few_quartets_give_a_ratio_and_no_claim() -> None:
    found = speed.compare(of_ratios([2.0] * 5), "torch", "id", 0.975)
    assert found is not None
    assert (found.ratio, found.lower, found.upper) == (pytest.approx(2.0), None, None)
    assert speed.compare(of_ratios([]), "torch", "id", 0.975) is None


@given(st.lists(st.floats(0.2, 5), min_size=6, max_size=20))
def test_swapping_sides_inverts_the_ratio_and_its_bounds(ratios: list[float]) -> None:
    one = of_ratios(ratios)
    here = speed.compare(one, "b", "b", 0.975)
    there = speed.compare(quartets(one.rival, one.candidate), "a", "a", 0.975)
    assert here is not None
    assert there is not None
    assert here.lower is not None
    assert here.upper is not None
    assert (there.lower, there.upper) == (pytest.approx(1 / here.upper), pytest.approx(1 / here.lower))
    assert here.lower <= here.ratio <= here.upper


def simulated(random: np.random.Generator, count: int, truth: float, ms: float = 4.0) -> speed.Quartets:
    """A machine that warms up by 30 %, with 2 % noise and, in a tenth of the slots, a neighbour that costs about 10 ms
    however fast the model is."""
    is_candidate = np.where(random.random(count)[:, None] < 0.5, [1, 0, 0, 1], [0, 1, 1, 0]).astype(bool)
    drift = np.exp(np.linspace(0, 0.3, 4 * count)).reshape(count, 4)
    times = np.where(is_candidate, ms, ms * truth) * drift * np.exp(random.normal(0, 0.02, (count, 4)))
    times += (random.random((count, 4)) < 0.1) * random.exponential(10, (count, 4))
    return quartets(times[is_candidate].reshape(count, 2), times[~is_candidate].reshape(count, 2))


@pytest.mark.parametrize("truth", [1.0, 2.0, 8.0])
def test_the_bounds_cover_the_truth_on_a_machine_that_drifts_and_stumbles(truth: float) -> None:
    """Nominal: at most 2.5 % of the sessions on each side; the exact level of the rank is 1.1 %."""
    random = np.random.default_rng(20261122)
    too_high = too_low = 0
    for _ in range(1500):
        found = speed.compare(simulated(random, 16, truth), "b", "b", 0.975)
        assert found is not None
        assert found.lower is not None
        assert found.upper is not None
        too_high += found.lower > truth
        too_low += found.upper < truth
    assert too_high / 1500 <= 0.025
    assert too_low / 1500 <= 0.025


def test_a_model_against_itself_is_never_proven_five_per_cent_faster() -> None:
    random = np.random.default_rng(3)
    for _ in range(400):
        found = speed.compare(simulated(random, 16, 1.0), "b", "b", 0.975)
        assert found is not None
        assert found.lower is not None
        assert found.lower < 1.05


def test_latency_bounds_take_a_quartet_as_one_observation() -> None:
    slots = np.repeat(np.arange(1.0, 17.0), 2).reshape(16, 2)
    found = speed.latency(slots, 0.975)
    assert found is not None
    assert (found.lower_ms, found.median_ms, found.upper_ms) == (4.0, 8.5, 13.0)
    assert speed.latency(np.empty((0, 2)), 0.975) is None
    few = speed.latency(slots[:5], 0.975)
    assert few is not None
    assert (few.lower_ms, few.upper_ms) == (None, None)


def test_latency_bounds_cover_the_median_when_slow_spells_last_several_slots() -> None:
    random = np.random.default_rng(5)
    level, missed = 0.975, 0
    for _ in range(1000):
        spells = zip(random.random(64) < 0.25, random.random(64) < 0.4, strict=True)
        state = list(itertools.accumulate(spells, lambda before, new: new if new[0] else before))
        times = 4 * np.exp(0.2 * np.array([slow for _, slow in state], float) + random.normal(0, 0.02, 64)).reshape(
            16, 4
        )
        found = speed.latency(times[:, [0, 3]], level)
        assert found is not None
        assert found.upper_ms is not None
        missed += found.upper_ms < 4.075  # the median of this mixture
    assert missed / 1000 <= 0.025


def control(ratios: list[float]) -> ControlResult:
    found = speed.control(of_ratios(ratios))
    assert found is not None
    return found


def test_a_control_around_one_is_clean() -> None:
    found = control([0.97, 1.03] * 8)
    assert found.outcome == "clean"
    assert found.interval999 is not None
    assert found.interval999[0] <= found.interval95[0] <= found.ratio <= found.interval95[1] <= found.interval999[1]


def test_a_control_that_prefers_one_of_two_equals_voids_the_session() -> None:
    found = control([1.021 + number / 1000 for number in range(16)])
    assert found.outcome == "void"
    assert "outside 0.98-1.02" in found.reason


def test_a_control_that_prefers_one_by_less_than_two_per_cent_is_clean() -> None:
    assert control([1.005 + number / 2000 for number in range(16)]).outcome == "clean"


def test_a_control_that_scatters_leaves_the_session_undecided() -> None:
    found = control([0.8, 1.25] * 8)
    assert found.outcome == "undecided"
    assert "noisy" in found.reason
    assert "leaves 0.95-1.05" in found.reason


def test_a_control_needs_six_quartets() -> None:
    assert speed.control(of_ratios([1.0] * 5)) is None
    assert control([1.0] * 6).interval999 is None


def test_a_fair_clock_is_voided_at_most_once_in_a_thousand_sessions() -> None:
    """The processes differ by as much as is fair, so that each session in which the interval misses them is void."""
    random = np.random.default_rng(11)
    outcomes = []
    for number in range(4000):
        centre = speed.FAIR[number % 2]
        outcomes.append(control(list(centre * np.exp(random.normal(0, 0.01, 16)))).outcome)
    assert 1 <= outcomes.count("void") <= 4
    assert outcomes.count("undecided") <= 4


def test_stored_tables_give_their_quartets_by_phase_and_rival(ladder: World) -> None:
    baseline, rival = ladder.candidates[0], ladder.candidates[3]
    ladder.time("judged", 16, pairs=[(ladder.candidates[5], rival)])
    table = load_timings(ladder.run.timings(ladder.candidates[5]))
    against = {phase: speed.quartets(table, phase, baseline.id) for phase in ("screening", "judged")}
    assert {phase: len(found) for phase, found in against.items()} == {"screening": 4, "judged": 16}
    assert against["judged"].ratio == pytest.approx(8.0, rel=0.02)
    assert speed.quartets(table, "judged", rival.id).ratio == pytest.approx(1.8, rel=0.02)
    assert len(speed.quartets(table, "judged", "nobody")) == 0
    assert speed.throughput(table) == pytest.approx(32 * 1000 / (20 * 0.5))


@pytest.mark.parametrize("ms", [0.0, -1.0, math.nan, math.inf, None])
def test_a_slot_that_took_no_time_is_refused(ladder: World, ms: float | None) -> None:
    candidate = ladder.candidates[1]
    rows = [list(row) for row in ladder.timings(candidate)]
    rows[3][8] = ms
    ladder.write_timings(candidate, rows)
    with pytest.raises(ArtifactError, match="slot of"):
        speed.quartets(load_timings(ladder.run.timings(candidate)), "screening", ladder.candidates[0].id)


def test_half_a_quartet_is_refused(ladder: World) -> None:
    candidate = ladder.candidates[1]
    ladder.write_timings(candidate, ladder.timings(candidate)[1:])
    with pytest.raises(ArtifactError, match="quartet 0"):
        speed.quartets(load_timings(ladder.run.timings(candidate)), "screening", ladder.candidates[0].id)
