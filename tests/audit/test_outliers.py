"""Images that are far from all others."""

from __future__ import annotations

import numpy as np
import pytest
from deep import context_of, pixels_of

from torchstone.audit import outliers
from torchstone.audit.features import Features
from torchstone.core.values import Catalog
from torchstone.data.catalog import read


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """scikit-learn's 1,797 digits of 8 × 8 pixels."""
    return read("digits", tmp_path_factory.mktemp("digits"))


def test_odd_images_come_first_even_when_they_are_alike(catalog: Catalog) -> None:
    features = pixels_of(catalog)
    odd = np.array([17, 400, 401, 900, 1500, 1501])
    vectors = features.vectors.copy()
    vectors[odd] = 1 - vectors[odd]  # black on white
    vectors[odd[3:]] = vectors[odd[3]]
    (finding,) = outliers.Outliers().run(context_of(catalog, Features("pixels", vectors)))
    assert set(finding.items[: len(odd)]) == set(context_of(catalog, None).items(odd))
    assert finding.severity == ("warning" if finding.scores[0] > outliers.VERY_FAR else "info")
    assert finding.decision == "review"
    assert list(finding.scores) == sorted(finding.scores, reverse=True)
    assert len(finding.items) < 0.05 * catalog.images


def test_distances_are_those_to_the_nearest_neighbours() -> None:
    vectors = np.random.default_rng(0).standard_normal((300, 8)).astype(np.float32)
    found = outliers.distances(vectors)
    for row in (0, 150, 299):
        apart = np.sort(np.linalg.norm(np.delete(vectors, row, axis=0) - vectors[row], axis=1))
        assert found[row] == pytest.approx(apart[: 300 // outliers.NEIGHBOURS].mean(), rel=1e-4)


def test_many_images_are_compared_with_some(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    vectors = random.standard_normal((5_000, 8)).astype(np.float32)
    vectors[7] += 10
    monkeypatch.setattr(outliers, "REFERENCES", 500)
    monkeypatch.setattr(outliers, "CHUNK", 999)
    assert outliers.distances(vectors).argmax() == 7


def test_it_is_silent_about_equal_images_few_images_and_without_features(catalog: Catalog) -> None:
    assert outliers.Outliers().run(context_of(catalog, None)) == []
    equal = Features("equal", np.ones((catalog.images, 4), np.float32))
    assert outliers.Outliers().run(context_of(catalog, equal)) == []
    few = catalog.model_copy(update={"images": 50})
    assert outliers.Outliers().run(context_of(few, equal)) == []
