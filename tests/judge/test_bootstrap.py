"""Bounds of what is no proportion: the statistics are the metrics themselves, and the bounds cover what is true."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from scipy.stats import t as student_t

from torchstone.core.values import Metric
from torchstone.core.verdict import MetricResult
from torchstone.evaluate import metrics
from torchstone.judge import accuracy, bootstrap

CLASSES = ("a", "b", "c", "d")


@dataclass
class Answers:
    items: Any
    labels: np.ndarray
    scores: np.ndarray


def models(n: int, seed: int, noise: float = 0.2, scale: float = 1.0) -> tuple[Answers, Answers]:
    """A baseline, and one whose logits are noisy and stretched."""
    random = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(4), random.choice(4, n - 4, p=[0.4, 0.3, 0.2, 0.1])])
    logits = 1.6 * random.normal(size=(n, 4))
    logits[np.arange(n), labels] += 5
    other = scale * (logits + 1.6 * noise * random.normal(size=(n, 4)))
    items = np.arange(n)
    return Answers(items, labels, logits), Answers(items, labels, other)


def measured(
    pair: tuple[Answers, Answers], level: float = 0.975, groups: np.ndarray | None = None, **options: Any
) -> dict[Metric, MetricResult]:
    result = accuracy.compare("test", *pair, CLASSES, level, groups)
    return {one.name: one for one in bootstrap.compare(*pair, groups, **options).at(level, result)}


def test_all_four_metrics_stand_beside_each_other_in_points() -> None:
    pair = models(400, 1, noise=0.6)
    found = measured(pair, resamples=500)
    before, after = (metrics.softmax(one.scores) for one in pair)
    labels = pair[0].labels
    assert list(found) == ["top1", "macro_f1", "auroc", "ece"]
    functions: dict[Metric, Any] = {"auroc": metrics.auroc, "ece": metrics.ece}
    for name, function in functions.items():
        assert found[name].baseline == pytest.approx(100 * function(labels, before))
        assert found[name].value == pytest.approx(100 * function(labels, after))
    matrix = metrics.confusion(labels, metrics.predicted_classes(after), 4)
    assert found["macro_f1"].value == pytest.approx(100 * metrics.macro_f1(matrix))
    for one in found.values():
        sign = -1 if one.name == "ece" else 1
        assert one.difference == pytest.approx(sign * (one.baseline - one.value))
        assert one.lower is not None
        assert one.upper is not None
        assert one.lower < one.difference < one.upper
    result = accuracy.compare("test", *pair, CLASSES, 0.975)
    assert (found["top1"].lower, found["top1"].upper) == (result.drop_lower, result.drop_upper)


def test_each_statistic_of_drawn_images_is_the_metric_of_those_images() -> None:
    """One resample, taken image by image. AUROC is drawn by its linear part, which is near it."""
    random = np.random.default_rng(0)
    labels = np.sort(np.concatenate([np.arange(4), random.integers(0, 4, 596)]))
    likely = [metrics.softmax(2 * random.normal(size=(600, 4)) + 3 * np.eye(4)[labels]) for _ in range(2)]
    answers = [metrics.predicted_classes(one) for one in likely]
    order = np.lexsort((answers[1], answers[0], labels))
    labels, answers, likely = labels[order], [one[order] for one in answers], [one[order] for one in likely]
    drawn = random.integers(0, 600, 600)
    weights = np.bincount(drawn, minlength=600).astype(float)[None]
    none = np.zeros(0, int)
    nothing = bootstrap.Extra(none, none, none, none, none.astype(bool), 1.0)

    def worse(kind: Any) -> float:
        return float(kind(labels, tuple(answers), tuple(likely)).worse(weights, nothing)[0, 0])

    f1 = [metrics.macro_f1(metrics.confusion(labels[drawn], one[drawn], 4)) for one in answers]
    assert worse(bootstrap.MacroF1) == pytest.approx(f1[0] - f1[1], abs=1e-12)
    errors = [metrics.ece(labels[drawn], one[drawn]) for one in likely]
    assert worse(bootstrap.CalibrationError) == pytest.approx(errors[1] - errors[0], abs=1e-12)
    areas = [metrics.auroc(labels[drawn], one[drawn]) for one in likely]
    everywhere = [metrics.auroc(labels, one) for one in likely]
    exact, whole = areas[0] - areas[1], everywhere[0] - everywhere[1]
    assert abs(exact - whole) > 1e-4
    assert worse(bootstrap.Auroc) == pytest.approx(exact, abs=0.1 * abs(exact - whole) + 1e-4)


def test_unseen_images_count_in_the_class_that_they_are_mistaken_for() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1])
    statistic = bootstrap.MacroF1(labels, (labels, labels), (np.eye(2)[labels], np.eye(2)[labels]))
    one = np.zeros(1, int)
    lost = bootstrap.Extra(one, one, one, one + 1, np.array([True]), 1.0)
    f1 = metrics.macro_f1([[3, 1], [0, 3]])
    assert statistic.worse(np.ones((1, 6)), lost)[0, 0] == pytest.approx(1 - f1)
    gained = bootstrap.Extra(one, one, one, one + 1, np.array([False]), 1.0)
    assert statistic.worse(np.ones((1, 6)), gained)[0, 0] == pytest.approx(f1 - 1)


def test_where_nothing_differs_the_loss_is_still_not_bounded_by_nothing() -> None:
    baseline, _ = models(300, 2)
    found = measured((baseline, baseline), resamples=2000)
    assert found["macro_f1"].difference == 0
    upper = found["macro_f1"].upper
    assert upper is not None
    assert 0.3 < upper < 4  # Tango bounds the drop of top-1 by 1.3 points here


def test_the_same_answers_give_the_same_bounds() -> None:
    pair = models(250, 3)
    assert measured(pair, resamples=800) == measured(pair, resamples=800)
    plain = bootstrap.compare(*pair, resamples=800)
    result = accuracy.compare("test", *pair, CLASSES, 0.95)
    wide, narrow = (plain.at(level, result)[1].upper for level in (0.99, 0.9))
    assert wide is not None
    assert narrow is not None
    assert wide > narrow


def test_without_resamples_nothing_is_claimed() -> None:
    found = measured(models(250, 3), resamples=None)
    assert all(one.upper is None and one.lower is None for one in found.values())
    assert len(found) == 4


def test_what_these_images_do_not_define_is_left_out() -> None:
    items, labels = np.arange(30), np.ones(30, int)
    scores = np.random.default_rng(0).normal(size=(30, 4))
    found = measured((Answers(items, labels, scores), Answers(items, labels, scores)), resamples=50)
    assert list(found) == ["top1", "macro_f1", "ece"]


def test_images_of_a_group_are_drawn_together() -> None:
    one, other = models(100, 4, noise=0.8)
    pair = [Answers(np.arange(500), np.repeat(a.labels, 5), np.repeat(a.scores, 5, axis=0)) for a in (one, other)]
    groups = np.repeat(np.arange(100), 5)
    alone, together = (measured((pair[0], pair[1]), groups=used, resamples=1500) for used in (None, groups))
    for name in ("macro_f1", "auroc", "ece"):
        widths = [(found[name].upper or 0) - (found[name].lower or 0) for found in (alone, together)]
        assert widths[1] > 1.6 * widths[0], name  # five copies of each image are no more images


def test_too_few_groups_bound_nothing() -> None:
    pair = models(200, 5)
    found = measured(pair, groups=np.arange(200) % 4, resamples=100)
    assert found["ece"].upper is None


@pytest.mark.parametrize("freedom", [4, 7, 20, 200])
@pytest.mark.parametrize("level", [0.9, 0.975, 0.99])
def test_the_quantile_of_student_is_that_of_scipy(freedom: int, level: float) -> None:
    from statistics import NormalDist

    expected = student_t.ppf(level, freedom)
    assert bootstrap.student(NormalDist().inv_cdf(level), freedom) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(("name", "most"), [("macro_f1", 0.07), ("ece", 0.07)])
def test_the_upper_bounds_cover_the_truth(name: Metric, most: float) -> None:
    """At a nominal 5 %, of 120 test sets; benchmarks/judge_coverage.py has the figures of more of them."""
    large = models(60_000, 99, noise=0.25)
    truth = measured(large, resamples=None)[name].difference
    missed = 0
    for seed in range(120):
        found = measured(models(300, seed, noise=0.25), level=0.95, only=name, resamples=300)[name]
        assert found.upper is not None
        missed += found.upper < truth
    assert missed / 120 <= most


@pytest.mark.parametrize("calibrated", ["candidate", "baseline"])
def test_chance_in_the_error_of_a_calibrated_model_is_no_finding(calibrated: str) -> None:
    """Its calibration error is found too large, so that percentiles miss the difference on one side."""

    def pair(n: int, seed: int) -> tuple[Answers, Answers]:
        loose, sharp = models(n, seed, noise=0.05, scale=1.95)
        return (loose, sharp) if calibrated == "candidate" else (sharp, loose)

    truth = measured(pair(60_000, 99), resamples=None)["ece"].difference / 100
    missed, by_percentiles = np.zeros(2), np.zeros(2)
    for seed in range(80):
        found = bootstrap.compare(*pair(120, seed), only="ece", resamples=300)
        assert found.draws is not None
        draws = found.draws["ece"]
        lower, upper = found.statistics["ece"].bounds(draws, 0.95, found.units)
        missed += (lower > truth, upper < truth)
        lower, upper = bootstrap.percentiles(draws[:, 0], 0.95, found.units)
        by_percentiles += (lower > truth, upper < truth)
    assert missed.max() <= 4
    assert by_percentiles.max() > 8


def test_of_models_that_answer_alike_the_bounds_are_near() -> None:
    found = measured(models(4000, 1, noise=0.01), resamples=300)["ece"]
    assert found.lower is not None
    assert found.upper is not None
    assert -0.6 < found.lower < found.difference < found.upper < 0.6
