"""Suspected label errors, on digits whose labels were changed."""

from __future__ import annotations

import numpy as np
import pytest
from deep import context_of, labels_of, pixels_of, with_columns
from sklearn.metrics import roc_auc_score

from torchstone.audit import probe
from torchstone.audit.features import Features
from torchstone.audit.label_errors import LabelErrors, suspects
from torchstone.core.values import Catalog
from torchstone.data.catalog import read
from torchstone.data.units import Units

SHARE = 0.05


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """scikit-learn's 1,797 digits of 8 × 8 pixels."""
    return read("digits", tmp_path_factory.mktemp("digits"))


def flipped(catalog: Catalog, seed: int = 0) -> tuple[Catalog, np.ndarray, np.ndarray]:
    """The catalog with 5 % of its labels changed at random; which rows were, and their true labels."""
    random, labels = np.random.default_rng(seed), labels_of(catalog)
    rows = random.choice(len(labels), round(SHARE * len(labels)), replace=False)
    wrong = labels.copy()
    wrong[rows] = (labels[rows] + random.integers(1, 10, len(rows))) % 10
    return with_columns(catalog, label=wrong.astype(np.int32)), rows, labels


def test_changed_labels_are_found_and_the_right_ones_suggested(catalog: Catalog) -> None:
    features = pixels_of(catalog)
    changed, rows, labels = flipped(catalog)
    finding, doubted = LabelErrors().run(context_of(changed, features))
    items = context_of(changed, None).items(np.arange(len(labels)))
    planted = {items[row]: catalog.classes[labels[row]] for row in rows}
    assert (finding.check, finding.severity, finding.decision) == ("label_errors", "warning", "review")
    assert len(finding.items) == len(finding.suggested) == len(finding.scores) == finding.evidence["images"]
    assert list(finding.scores) == sorted(finding.scores)
    assert sum(item in planted for item in finding.items[: len(rows)]) > 0.75 * len(rows)
    hits = [(item, seems) for item, seems in zip(finding.items, finding.suggested, strict=True) if item in planted]
    assert len(hits) > 0.75 * len(rows)
    assert sum(planted[item] == seems for item, seems in hits) > 0.95 * len(hits)
    assert 0.03 < finding.evidence["estimated_share_of_wrong_labels"] < 0.12
    assert finding.evidence["features"] == "pixels"
    assert "seems" in finding.message
    assert (doubted.severity, doubted.decision) == ("info", None)
    assert sum(item in planted for item in doubted.items) < 0.5 * len(doubted.items)


def test_a_weak_classifier_accuses_few_where_no_label_is_wrong(catalog: Catalog) -> None:
    """Confident learning alone would call all its own mistakes label errors."""
    weak = Features("eight pixels", np.ascontiguousarray(pixels_of(catalog).vectors[:, 18:50:4]))
    found = LabelErrors().run(context_of(catalog, weak))
    assert found[-1].severity == "info"
    assert found[-1].evidence["held_out_recall"] < 0.85
    assert found[-1].evidence["doubted"] > 100
    assert sum(len(finding.items) for finding in found if finding.severity == "warning") < 20


def test_confident_learning_as_it_is_defined(catalog: Catalog) -> None:
    """The definition, written down with all probabilities at hand (Northcutt et al. 2021, equation 1)."""
    features = pixels_of(catalog)
    changed, rows, _ = flipped(catalog, seed=1)
    labels = labels_of(changed)
    turns = np.random.default_rng(1).permutation(len(labels))
    folds = probe.folds_of(labels, Units(of_row=np.arange(len(labels)), draws=turns, turns=turns))
    fitted = probe.fit(features.vectors, labels, folds, 10)
    found = suspects(fitted, features.vectors, labels, 10)

    probabilities = np.empty((len(labels), 10))
    for part, its in fitted.held_out(features.vectors):
        probabilities[part] = its
    thresholds = [probabilities[labels == label, label].mean() for label in range(10)]
    expected = []
    for row, chances in enumerate(probabilities):
        reached = [label for label in range(10) if chances[label] >= thresholds[label]]
        if reached and max(reached, key=lambda label: chances[label]) != labels[row] != chances.argmax():
            expected.append(row)
    assert set(found.rows) == set(expected)
    wrong = np.isin(np.arange(len(labels)), rows)
    assert roc_auc_score(wrong, -found.confidence) > 0.97


def test_copies_do_not_vouch_for_each_other(catalog: Catalog) -> None:
    """A wrong label on three copies of an image: with copies in other folds the probe would have learned it."""
    features = pixels_of(catalog)
    labels, vectors = labels_of(catalog), features.vectors.copy()
    copies = np.flatnonzero(labels == 3)[:40]
    vectors[copies] = vectors[copies[0]]
    labels[copies] = 5
    picture = np.arange(len(labels), dtype=np.int32)
    picture[copies] = copies[0]
    joined = with_columns(catalog, label=labels.astype(np.int32), picture=picture)
    found = LabelErrors().run(context_of(joined, Features("pixels", vectors)))
    items = context_of(joined, None).items(copies)
    assert set(items) <= {item for finding in found for item in finding.items}


def test_features_that_know_nothing_accuse_nobody(catalog: Catalog) -> None:
    vectors = np.random.default_rng(0).standard_normal((catalog.images, 32), np.float32)
    (finding,) = LabelErrors().run(context_of(catalog, Features("noise", vectors)))
    assert finding.severity == "info"
    assert not finding.items
    assert "were not judged" in finding.message


def test_a_class_of_few_images_is_not_judged(catalog: Catalog) -> None:
    features = pixels_of(catalog)
    labels = labels_of(catalog)
    wrong = np.flatnonzero(labels == 0)[:5]  # five zeros become the only images of a class of their own
    labels[labels == 9] = 8
    labels[wrong] = 9
    found = LabelErrors().run(context_of(with_columns(catalog, label=labels.astype(np.int32)), features))
    named = {item for finding in found for item in finding.items}
    assert named
    assert "9" not in {seems for finding in found for seems in finding.suggested}
    assert found[0].evidence["classes_too_rare_to_judge"] == ["9"]
    assert not set(context_of(catalog, None).items(wrong)) & named


def test_it_is_silent_where_it_cannot_know(catalog: Catalog) -> None:
    assert LabelErrors().run(context_of(catalog, None)) == []
    features = pixels_of(catalog)
    one = catalog.model_copy(update={"classes": ("digit",)})
    assert LabelErrors().run(context_of(one, features)) == []
