"""The linear probe: what it is fitted to, and that it never answers about what it has seen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from torchstone.audit import probe
from torchstone.data.units import Units


def alone(count: int) -> Units:
    """Every row a unit of its own, in a fixed random order."""
    turns = np.random.default_rng(0).permutation(count)
    return Units(of_row=np.arange(count), draws=turns, turns=turns)


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    vectors, labels = load_digits(return_X_y=True)
    return (np.asarray(vectors) / 16).astype(np.float32), np.asarray(labels).astype(np.intp)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 20)), min_size=1, max_size=60), st.integers(0, 9))
def test_folds_keep_units_together_and_classes_even(rows: list[tuple[int, int]], seed: int) -> None:
    labels = np.array([label for label, _ in rows])
    _, first, of_row = np.unique([unit for _, unit in rows], return_index=True, return_inverse=True)
    turns = np.random.default_rng(seed).permutation(len(first))
    folds = probe.folds_of(labels, Units(of_row=of_row, draws=turns, turns=turns))
    for unit in range(len(first)):
        assert len(set(folds[of_row == unit])) == 1
    for label in set(labels[first]):
        sizes = np.bincount(folds[first][labels[first] == label], minlength=probe.FOLDS)
        assert sizes.max() - sizes.min() <= 1


def test_it_is_scikit_learns_discriminant_of_the_other_folds(digits: tuple[np.ndarray, np.ndarray]) -> None:
    vectors, labels = digits
    folds = probe.folds_of(labels, alone(len(labels)))
    fitted = probe.fit(vectors, labels, folds, 10)
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=fitted.shrinkage)
    for fold in (0, 3):
        known, hidden = folds != fold, folds == fold
        theirs.fit(vectors[known], labels[known])
        # They divide the scatter by n, we by n - classes.
        expected = np.log(theirs.priors_) + (
            vectors[hidden] @ theirs.coef_.T + theirs.intercept_ - np.log(theirs.priors_)
        ) * ((known.sum() - 10) / known.sum())
        ours = fitted.scores(vectors[hidden], fold) / fitted.temperature
        np.testing.assert_allclose(ours - ours[:, :1], expected - expected[:, :1], atol=2e-2)


def test_its_probabilities_are_honest(digits: tuple[np.ndarray, np.ndarray]) -> None:
    vectors, labels = digits
    fitted = probe.fit(vectors, labels, probe.folds_of(labels, alone(len(labels))), 10)
    seen = np.zeros(len(labels), int)
    sure, right = [], []
    for rows, probabilities in fitted.held_out(vectors):
        seen[rows] += 1
        np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-4)
        sure.append(probabilities.max(1))
        right.append(probabilities.argmax(1) == labels[rows])
    assert (seen == 1).all()
    assert np.concatenate(right).mean() > 0.92
    assert abs(np.concatenate(sure).mean() - np.concatenate(right).mean()) < 0.03


def test_a_class_that_no_other_fold_has_is_impossible_there(digits: tuple[np.ndarray, np.ndarray]) -> None:
    vectors, labels = digits
    kept = np.concatenate([np.flatnonzero(labels != 9), np.flatnonzero(labels == 9)[:1]])
    fitted = probe.fit(vectors[kept], labels[kept], probe.folds_of(labels[kept], alone(len(kept))), 10)
    for rows, probabilities in fitted.held_out(vectors[kept]):
        assert np.isfinite(probabilities).all()
        if labels[kept][rows][-1] == 9:
            assert probabilities[-1, 9] == 0


def test_equal_vectors_tell_nothing(digits: tuple[np.ndarray, np.ndarray]) -> None:
    _, labels = digits
    vectors = np.ones((len(labels), 16), np.float32)
    fitted = probe.fit(vectors, labels, probe.folds_of(labels, alone(len(labels))), 10)
    for _, probabilities in fitted.held_out(vectors):
        np.testing.assert_allclose(probabilities, 0.1, atol=0.01)
