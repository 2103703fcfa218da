"""The numpy metrics give what scikit-learn gives."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sklearn = pytest.importorskip("sklearn.metrics")

from torchstone.evaluate import metrics  # noqa: E402


def pairs(classes: int = 6) -> st.SearchStrategy[list[tuple[int, int]]]:
    index = st.integers(0, classes - 1)
    return st.lists(st.tuples(index, index), min_size=1, max_size=60)


@settings(max_examples=60, deadline=None)
@given(pairs())
def test_counts_and_rates_are_those_of_scikit_learn(rows: list[tuple[int, int]]) -> None:
    labels, predicted = np.array(rows).T
    matrix = metrics.confusion(labels, predicted, 6)
    every = list(range(6))

    assert (matrix == sklearn.confusion_matrix(labels, predicted, labels=every)).all()
    assert metrics.top1(labels, predicted) == pytest.approx(sklearn.accuracy_score(labels, predicted))
    assert metrics.agreement(labels, predicted) == metrics.top1(labels, predicted)
    for ours, theirs in (
        (metrics.recall, sklearn.recall_score),
        (metrics.precision, sklearn.precision_score),
        (metrics.f1, sklearn.f1_score),
    ):
        expected = theirs(labels, predicted, labels=every, average=None, zero_division=np.nan)
        np.testing.assert_allclose(ours(matrix), expected)
    assert metrics.macro_f1(matrix) == pytest.approx(sklearn.f1_score(labels, predicted, average="macro"))
    assert metrics.weighted_f1(matrix) == pytest.approx(sklearn.f1_score(labels, predicted, average="weighted"))


@settings(max_examples=40, deadline=None)
@given(pairs(3))
def test_balanced_accuracy_is_the_mean_recall_of_the_classes_that_are_there(rows: list[tuple[int, int]]) -> None:
    labels, predicted = np.array(rows).T
    expected = sklearn.recall_score(labels, predicted, labels=np.unique(labels), average="macro")
    assert metrics.balanced_accuracy(metrics.confusion(labels, predicted, 3)) == pytest.approx(expected)


@pytest.mark.parametrize("k", [1, 2, 5, 10])
def test_topk_is_that_of_scikit_learn(k: int) -> None:
    random = np.random.default_rng(k)
    scores = random.normal(size=(500, 10))
    labels = random.integers(0, 10, 500)
    expected = np.mean([label in np.argsort(row)[-k:] for label, row in zip(labels, scores, strict=True)])
    if k < 10:  # with k = C scikit-learn warns that everything is right
        assert expected == pytest.approx(sklearn.top_k_accuracy_score(labels, scores, k=k, labels=range(10)))
    assert metrics.topk(labels, scores, k) == pytest.approx(expected)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 2), min_size=4, max_size=4), min_size=1, max_size=20), st.data())
def test_top1_by_scores_and_by_classes_agree_even_with_ties(rows: list[list[int]], data: st.DataObject) -> None:
    scores = np.array(rows, np.float32)
    labels = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(rows), max_size=len(rows))))
    assert metrics.topk(labels, scores, 1) == metrics.top1(labels, metrics.predicted_classes(scores))


def test_a_class_without_images_has_no_recall_and_does_not_count() -> None:
    matrix = metrics.confusion([0, 0, 1], [0, 1, 1], 3)
    assert np.isnan(metrics.recall(matrix)[2])
    assert metrics.balanced_accuracy(matrix) == pytest.approx(0.75)


def test_summary_holds_top5_only_where_there_are_more_than_five_classes() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 5, 40)
    few = metrics.summary(labels, random.normal(size=(40, 5)))
    many = metrics.summary(labels, random.normal(size=(40, 8)))
    assert "top5" not in few
    assert many["top5"] >= many["top1"]


def test_summary_has_the_judges_metrics_and_leaves_out_an_auroc_that_is_not_defined() -> None:
    random = np.random.default_rng(0)
    labels, logits = random.integers(0, 3, 60), random.normal(size=(60, 3))
    found = metrics.summary(labels, logits)
    assert found["auroc"] == metrics.auroc(labels, metrics.softmax(logits))
    assert found["ece"] == metrics.ece(labels, metrics.softmax(logits))
    alone = metrics.summary(np.ones(60, int), logits)
    assert "auroc" not in alone
    assert 0 < alone["ece"] < 1


@pytest.mark.parametrize(("labels", "predicted"), [([0, 1], [0]), ([0, 3], [0, 0]), ([0, 0], [0, -1]), ([[0]], [[0]])])
def test_what_does_not_fit_is_refused(labels: list, predicted: list) -> None:
    with pytest.raises(ValueError, match=r"must lie in|one length"):
        metrics.confusion(labels, predicted, 3)


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("rounded", [3, 1])
def test_auroc_is_that_of_scikit_learn(classes: int, rounded: int) -> None:
    random = np.random.default_rng(classes)
    labels = np.concatenate([np.arange(classes), random.integers(0, classes, 300)])
    logits = random.normal(size=(len(labels), classes))
    logits[np.arange(len(labels)), labels] += 1.2
    probabilities = metrics.softmax(np.round(logits, rounded))  # rounded, so that there are equal scores
    expected = np.mean([sklearn.roc_auc_score(labels == one, probabilities[:, one]) for one in range(classes)])
    assert metrics.auroc(labels, probabilities) == pytest.approx(expected, abs=1e-12)
    if classes > 2:
        theirs = sklearn.roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
        assert metrics.auroc(labels, probabilities) == pytest.approx(theirs, abs=1e-12)


def test_auroc_leaves_out_what_has_no_images_and_is_nan_of_one_class() -> None:
    labels = np.array([0, 0, 2, 2])
    probabilities = np.array([[0.6, 0.3, 0.1], [0.3, 0.3, 0.4], [0.4, 0.1, 0.5], [0.1, 0.1, 0.8]])
    assert metrics.auroc(labels, probabilities) == pytest.approx((3 / 4 + 4 / 4) / 2)
    assert np.isnan(metrics.auroc([1, 1], [[0.2, 0.8], [0.6, 0.4]]))


def test_placements_average_to_the_same_area_from_both_sides() -> None:
    random = np.random.default_rng(1)
    positive = random.random(200) < 0.3
    scores = np.round(random.normal(size=200) + positive, 1)
    found = metrics.placements(positive, scores)
    area = sklearn.roc_auc_score(positive, scores)
    assert found[positive].mean() == pytest.approx(area, abs=1e-12)
    assert found[~positive].mean() == pytest.approx(area, abs=1e-12)


def test_the_calibration_error_by_hand() -> None:
    # Of two bins: (0, 0.5] holds 0.5 right and 0.4 wrong, (0.5, 1] holds 0.9 right, 0.8 wrong and 0.7 right.
    probabilities = [[0.5, 0.3, 0.2], [0.4, 0.35, 0.25], [0.9, 0.1, 0.0], [0.1, 0.8, 0.1], [0.2, 0.1, 0.7]]
    labels = [0, 1, 0, 0, 2]
    first, second = abs(0.5 - 0.45), abs(2 / 3 - 0.8)
    assert metrics.ece(labels, probabilities, bins=2) == pytest.approx(2 / 5 * first + 3 / 5 * second)
    place, gap = metrics.calibration_gaps(labels, probabilities, bins=2)
    assert place.tolist() == [0, 0, 1, 1, 1]
    assert gap.tolist() == pytest.approx([0.5, -0.4, 0.1, -0.8, 0.3])


def test_the_calibration_error_of_certain_answers_is_the_error_rate() -> None:
    labels = np.array([0, 1, 1, 0])
    assert metrics.ece(labels, np.eye(2)[[0, 1, 0, 0]]) == pytest.approx(0.25)


def test_softmax_is_that_of_scipy() -> None:
    special = pytest.importorskip("scipy.special")
    logits = np.random.default_rng(2).normal(0, 200, (20, 7))
    np.testing.assert_allclose(metrics.softmax(logits), special.softmax(logits, axis=1), atol=1e-15)
    assert metrics.softmax(logits.astype(np.float32)).dtype == np.float32


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3000), st.floats(0, 1), st.sampled_from((0.9, 0.95, 0.99)))
def test_the_interval_of_a_top1_is_wilsons(images: int, share: float, level: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    right = round(share * images)
    expected = stats.binomtest(right, images).proportion_ci(level, method="wilson")
    assert metrics.interval(right / images, images, level) == pytest.approx((expected.low, expected.high), abs=1e-12)
