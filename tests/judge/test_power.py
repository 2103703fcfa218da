"""The planning numbers are those of the design, and they keep what they promise."""

from statistics import NormalDist

import numpy as np
import pytest
from scipy.stats import multinomial

from torchstone.core.values import Budget
from torchstone.judge import accuracy, power

FIRST_LOOK = 0.975


@pytest.mark.parametrize(("margin", "agreeing", "usual"), [(0.005, 765, 6280), (0.01, 381, 1570)])
def test_the_numbers_that_the_design_states(margin: float, agreeing: int, usual: int) -> None:
    assert power.images_needed(margin, 0.0, 0.0, FIRST_LOOK) == power.least_images(margin, FIRST_LOOK) == agreeing
    assert power.images_needed(margin, 0.02, 0.0, FIRST_LOOK) == usual


@pytest.mark.parametrize("margin", [0.003, 0.005, 0.01, 0.05])
def test_the_least_number_is_exactly_where_tangos_bound_reaches_the_margin(margin: float) -> None:
    least = power.least_images(margin, FIRST_LOOK)
    assert accuracy.upper_bound(0, 0, least, FIRST_LOOK) <= margin
    assert accuracy.upper_bound(0, 0, least - 1, FIRST_LOOK) > margin


def test_a_true_drop_as_large_as_the_margin_cannot_be_shown_away() -> None:
    assert power.images_needed(0.01, 0.02, 0.01, FIRST_LOOK) is None
    assert power.images_needed(0.01, 0.0, 0.02, FIRST_LOOK) is None


def test_a_drop_costs_images() -> None:
    without = power.images_needed(0.01, 0.02, 0.0, FIRST_LOOK)
    with_drop = power.images_needed(0.01, 0.02, 0.005, FIRST_LOOK)
    assert without is not None
    assert with_drop is not None
    assert with_drop == pytest.approx(4 * without, abs=4)


@pytest.mark.parametrize(("images", "disagreement"), [(629, 0.0), (629, 0.02), (10_000, 0.02), (50, 0.05)])
def test_the_smallest_margin_and_the_images_needed_are_inverse(images: int, disagreement: float) -> None:
    margin = power.smallest_margin(images, disagreement, FIRST_LOOK)
    needed = power.images_needed(margin, disagreement, 0.0, FIRST_LOOK)
    assert needed is not None
    assert abs(needed - images) <= 1


@pytest.mark.parametrize(
    ("margin", "disagreement", "low", "high"),
    [(0.01, 0.02, 0.75, 0.80), (0.01, 0.05, 0.78, 0.80), (0.02, 0.02, 0.65, 0.70)],
)
def test_the_power_that_the_number_of_images_really_has(
    margin: float, disagreement: float, low: float, high: float
) -> None:
    """Exact, over all outcomes when there is no drop: what the module's docstring states of the approximation."""
    images = power.images_needed(margin, disagreement, 0.0, FIRST_LOOK)
    assert images is not None
    count = np.arange(round(images * disagreement / 2) + 60)
    lost, gained = (grid.ravel() for grid in np.meshgrid(count, count))
    lost, gained = lost[lost + gained <= images], gained[lost + gained <= images]
    cells = np.column_stack([lost, gained, images - lost - gained])
    chance = multinomial.pmf(cells, images, [disagreement / 2, disagreement / 2, 1 - disagreement])
    z = NormalDist().inv_cdf(FIRST_LOOK)
    passes = [accuracy.score(int(x), int(y), images, margin) <= -z for x, y in zip(lost, gained, strict=True)]
    assert chance.sum() == pytest.approx(1, abs=1e-6)
    assert low <= chance[passes].sum() <= high


def test_what_run_says_before_it_trains() -> None:
    said = power.statement(629, FIRST_LOOK)
    assert "629 images" in said
    assert "0.6 points if the models agree perfectly, 1.6 at 2 % disagreement" in said


def test_of_other_metrics_nothing_is_foretold() -> None:
    groups = np.arange(300) // 10
    top1 = power.foreseen(300, None, Budget(max_drop=0.5), 1, FIRST_LOOK)
    assert len(top1) == 2
    assert "cannot be shown on 300 test images" in top1[1]
    grouped = power.foreseen(300, groups, Budget(max_drop=5), 1, FIRST_LOOK)
    assert "300 images in 30 groups, which may count as no more than 30, can show" in grouped[0]
    assert "on 30 independent test images" in grouped[1]
    uneven = np.repeat([0, 1, 2], [10, 4, 1])
    assert "no more than 1," in power.foreseen(15, uneven, Budget(), 1, FIRST_LOOK)[0]  # 225 / 117
    assert power.foreseen(300, groups, Budget(max_drop=0.5, metric="auroc"), 2, 0.9875) == ["look 2, bounds at 98.75 %"]


def test_a_margin_that_this_test_set_can_never_show_is_said_to_be_so() -> None:
    assert power.advice(765, 0.005, FIRST_LOOK) is None
    said = power.advice(629, 0.005, FIRST_LOOK)
    assert said is not None
    assert "765" in said
    assert "136 more" in said
