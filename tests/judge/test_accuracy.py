"""Tango's bound: against what others published and against its definition. Its false passes are in test_exact.py."""

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from torchstone.core.errors import ArtifactError
from torchstone.judge import accuracy


@pytest.mark.parametrize(
    ("lost", "gained", "n", "two_sided", "lower", "upper", "digits"),
    [
        # Tango (1998), Statistics in Medicine 17: sleep (Karacan 1976), and contact lenses (Miyanaga 1994)
        (9, 3, 32, 0.95, -0.027, 0.390, 3),
        (0, 1, 44, 0.90, -0.096, 0.037, 3),
        # Agresti & Min (2005), Statistics in Medicine 24
        (16, 8, 86, 0.95, -0.020, 0.207, 3),
        # Airway hyper-responsiveness (Bentur 2009) in Fagerland, Lydersen & Laake (2014), Statistics in Medicine 33
        (1, 7, 21, 0.95, -0.517, -0.026, 3),
        # Complete response (Cavo 2012), as printed by the R package contingencytables 3.0
        (6, 16, 161, 0.95, -0.1240, -0.0054, 4),
        # R's PropCIs::scoreci.mp(25, 28, 618, conf.level = 0.90)
        (28, 25, 618, 0.90, -0.0148, 0.0247, 4),
    ],
)
def test_published_intervals(
    lost: int, gained: int, n: int, two_sided: float, lower: float, upper: float, digits: int
) -> None:
    level = (1 + two_sided) / 2
    assert round(accuracy.lower_bound(lost, gained, n, level), digits) == lower
    assert round(accuracy.upper_bound(lost, gained, n, level), digits) == upper


@st.composite
def counts(draw: st.DrawFn) -> tuple[int, int, int]:
    n = draw(st.integers(1, 20_000))
    lost = draw(st.one_of(st.just(0), st.just(n), st.integers(0, min(n, 60)), st.integers(0, n)))
    gained = draw(st.one_of(st.just(0), st.just(n - lost), st.integers(0, min(n - lost, 60))))
    return lost, gained, n


@settings(max_examples=200, deadline=None)
@given(counts(), st.sampled_from([0.9, 0.95, 0.975, 0.9875]))
def test_the_bound_is_where_the_score_test_stops_rejecting(case: tuple[int, int, int], level: float) -> None:
    lost, gained, n = case
    drop = (lost - gained) / n
    lower, upper = (bound(lost, gained, n, level) for bound in (accuracy.lower_bound, accuracy.upper_bound))
    assert -1 <= lower <= drop <= upper <= 1
    z = NormalDist().inv_cdf(level)
    if upper < 1 - 1e-9:
        assert accuracy.score(lost, gained, n, upper) == pytest.approx(-z, rel=1e-6)
        assert upper > drop
    else:
        assert lost == n


@settings(max_examples=80, deadline=None)
@given(counts(), st.floats(-0.99, 0.99))
def test_the_closed_form_is_the_maximum_of_the_likelihood(case: tuple[int, int, int], drop: float) -> None:
    """Brute force: maximise the trinomial log-likelihood numerically under the restriction p_lost - p_gained = drop."""
    lost, gained, n = case
    same = n - lost - gained

    def log_likelihood(q: float) -> float:
        terms = ((lost, q + drop), (gained, q), (same, 1 - 2 * q - drop))
        return sum(count * np.log(max(p, 1e-300)) for count, p in terms if count)

    low, high = max(0.0, -drop), (1 - drop) / 2
    best: Any = minimize_scalar(
        lambda q: -log_likelihood(q), bounds=(low, high), method="bounded", options={"xatol": 1e-12}
    )
    variance = n * (2 * best.x + drop - drop**2)
    closed = accuracy.score(lost, gained, n, drop)
    if drop >= 0:
        q = float(accuracy.restricted_gain(lost, gained, n, drop))
    else:
        q = float(accuracy.restricted_gain(gained, lost, n, -drop)) - drop
    assert low - 1e-9 <= q <= high + 1e-9
    assert log_likelihood(min(max(q, low), high)) >= log_likelihood(best.x) - 1e-6 * (1 + abs(log_likelihood(best.x)))
    if variance > 1e-3 * n:
        assert closed == pytest.approx((lost - gained - n * drop) / variance**0.5, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("n", [1, 21, 765, 10_000])
@pytest.mark.parametrize("level", [0.95, 0.975])
def test_the_ends_have_closed_forms(n: int, level: float) -> None:
    z2 = NormalDist().inv_cdf(level) ** 2
    assert accuracy.upper_bound(0, 0, n, level) == pytest.approx(z2 / (n + z2), rel=1e-9)
    assert accuracy.lower_bound(0, 0, n, level) == pytest.approx(-z2 / (n + z2), rel=1e-9)
    assert accuracy.upper_bound(n, 0, n, level) == 1.0
    assert accuracy.lower_bound(n, 0, n, level) == pytest.approx((n - z2) / (n + z2), rel=1e-9)


@settings(max_examples=100, deadline=None)
@given(counts(), st.sampled_from([0.95, 0.975]))
def test_more_losses_never_lower_the_bound_and_sides_mirror(case: tuple[int, int, int], level: float) -> None:
    lost, gained, n = case
    upper = accuracy.upper_bound(lost, gained, n, level)
    assert accuracy.lower_bound(gained, lost, n, level) == -upper
    if lost + gained < n:
        assert accuracy.upper_bound(lost + 1, gained, n, level) >= upper - 1e-12
    assert accuracy.upper_bound(lost, gained, n, 0.99) >= upper


@pytest.mark.parametrize("bad", [(-1, 0, 5, 0.95), (3, 3, 5, 0.95), (0, 0, 0, 0.95), (0, 0, 5, 0.3), (0, 0, 5, 1.0)])
def test_impossible_counts_are_refused(bad: tuple[int, int, int, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        accuracy.upper_bound(*bad)


@dataclass
class Answers:
    items: Any
    labels: np.ndarray
    scores: np.ndarray


def answers(labels: list[int], predicted: list[int], classes: int = 3) -> Answers:
    return Answers(
        [f"i{k}" for k in range(len(labels))], np.array(labels), np.eye(classes, dtype=np.float32)[predicted]
    )


CLASSES = ("cat", "dog", "owl")


def test_two_sets_of_predictions_are_counted_image_by_image() -> None:
    labels = [0, 0, 0, 0, 1, 1, 2, 2, 2, 2]
    baseline = answers(labels, [0, 0, 0, 1, 1, 1, 2, 2, 0, 0])
    candidate = answers(labels, [0, 1, 1, 1, 1, 1, 2, 2, 2, 1])
    result = accuracy.compare("test", baseline, candidate, CLASSES, 0.975)
    assert (result.images, result.lost, result.gained) == (10, 2, 1)
    assert (result.baseline_top1, result.top1, result.drop) == (70.0, 60.0, 10.0)
    assert result.agreement == 60.0
    assert result.drop_lower < 10.0 < result.drop_upper


def test_a_model_against_itself_differs_by_nothing() -> None:
    same = answers([0, 1, 2] * 100, [0, 1, 1] * 100)
    result = accuracy.compare("test", same, same, CLASSES, 0.975)
    assert (result.drop, result.lost, result.gained, result.agreement) == (0.0, 0, 0, 100.0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"items": ["i1", "i0", "i2"]}, "same test images in the same order"),
        ({"items": ["i0", "i1"]}, "same test images"),
        ({"labels": np.array([0, 1, 1])}, "labels"),
        ({"scores": np.eye(4, dtype=np.float32)[[0, 1, 2]]}, "shape"),
        ({"scores": np.full((3, 3), np.nan, np.float32)}, "NaN"),
    ],
)
def test_predictions_that_do_not_belong_together_are_refused(change: dict[str, Any], said: str) -> None:
    baseline, candidate = answers([0, 1, 2], [0, 1, 2]), answers([0, 1, 2], [0, 1, 2])
    for name, value in change.items():
        setattr(candidate, name, value)
    with pytest.raises(ArtifactError, match=said) as caught:
        accuracy.compare("test", baseline, candidate, CLASSES, 0.975)
    assert caught.value.hint
