"""Parts that do not hold the same kind of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
from deep import context_of, labels_of, pixels_of, with_columns
from PIL import Image, ImageEnhance
from sklearn.metrics import roc_auc_score

from torchstone.audit import AuditContext, two_sample
from torchstone.audit.features import Features
from torchstone.audit.shift import Shift
from torchstone.core.values import Catalog, Finding
from torchstone.data.catalog import read
from torchstone.data.split import split


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """scikit-learn's 1,797 digits of 8 × 8 pixels."""
    return read("digits", tmp_path_factory.mktemp("digits"))


def parted(catalog: Catalog, test: np.ndarray) -> Catalog:
    return with_columns(catalog, part=np.where(test, "test", "train").tolist())


def content(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.evidence["compared"] != "class shares"]


def test_parts_drawn_at_random_do_not_differ(catalog: Catalog) -> None:
    features = pixels_of(catalog)
    for seed in range(3):
        test = np.random.default_rng(seed).random(catalog.images) < 0.3
        assert Shift().run(context_of(parted(catalog, test), features)) == []
        assert Shift().run(context_of(parted(catalog, test), None)) == []


def test_a_test_part_of_other_writers_is_noticed(catalog: Catalog) -> None:
    """A digit's pixels moved by one column in a third of the images, which become the test part."""
    features = pixels_of(catalog)
    test = np.random.default_rng(0).random(catalog.images) < 0.3
    images = features.vectors.reshape(-1, 8, 8).copy()
    images[test] = np.roll(images[test], 1, axis=2)
    moved = Features("pixels", images.reshape(-1, 64))
    (finding,) = Shift().run(context_of(parted(catalog, test), moved))
    assert (finding.check, finding.severity) == ("shift", "warning")
    assert finding.evidence["parts"] == ["train", "test"]
    assert finding.evidence["auc"] > 0.9
    low, high = finding.evidence["interval"]
    assert low < finding.evidence["auc"] < high
    assert finding.evidence["p"] == pytest.approx(0.005)
    assert "by pixels, a linear classifier" in finding.message
    held_out = set(context_of(catalog, None).items(np.flatnonzero(test)))
    assert set(finding.items) <= held_out


def test_other_class_shares_are_no_other_images(catalog: Catalog) -> None:
    """A test part with mostly low digits: the shares are reported, the look of the images is not."""
    random, labels = np.random.default_rng(0), labels_of(catalog)
    test = random.random(len(labels)) < np.where(labels < 5, 0.4, 0.1)
    (finding,) = Shift().run(context_of(parted(catalog, test), pixels_of(catalog)))
    assert finding.evidence["compared"] == "class shares"
    assert finding.evidence["would_have_to_change_class"] == pytest.approx(0.4, abs=0.05)


def test_frames_of_one_film_count_once(catalog: Catalog) -> None:
    """160 films of equal frames: frame by frame the parts are told apart at once, film by film there is nothing."""
    random = np.random.default_rng(0)
    film = np.arange(catalog.images) % 160
    vectors = random.standard_normal((160, 100), np.float32)[film]
    test = film < 80
    labels = np.zeros(catalog.images, np.int32)
    grouped = with_columns(parted(catalog, test), group=[f"film {number}" for number in film], label=labels)
    one = grouped.model_copy(update={"classes": ("digit",)})
    assert Shift().run(context_of(one, Features("films", vectors))) == []
    assert two_sample.tell_apart(vectors, labels.astype(np.intp), test.astype(np.intp), "frames").auc > 0.95


def test_measures_of_the_pixels_without_features(tmp_path: Path) -> None:
    photo = Image.open(Path(sklearn.datasets.__file__).parent / "images" / "flower.jpg").convert("RGB")
    random = np.random.default_rng(0)
    for part, count, brightness in (("train", 90, 1.0), ("test", 70, 0.6)):
        for name in ("a", "b"):
            (tmp_path / "images" / part / name).mkdir(parents=True)
            for index in range(count):
                left, top = int(random.integers(0, 600)), int(random.integers(0, 380))
                piece = photo.crop((left, top, left + 40, top + 40))
                ImageEnhance.Brightness(piece).enhance(brightness).save(
                    tmp_path / "images" / part / name / f"{index}.png"
                )
    catalog = read(str(tmp_path / "images"), tmp_path / "out")
    findings = content(Shift().run(context_of(catalog, None)))
    assert len(findings) == 1
    assert findings[0].evidence["compared"] == "measures of the pixels"
    assert "darker" in findings[0].message
    assert findings[0].evidence["measures"]["luma_mean"] < 0.4


def test_a_split_at_random_is_sound(catalog: Catalog, tmp_path: Path) -> None:
    parts = split(catalog, tmp_path, seed=0, test_fraction=0.3)
    assert Shift().run(AuditContext(catalog, (), parts, pixels_of(catalog))) == []


def test_auc_and_its_error() -> None:
    random = np.random.default_rng(0)
    drawn = [(random.standard_normal(80) + 0.7, random.standard_normal(60).round(1)) for _ in range(300)]
    found = [two_sample.auc(second, first) for second, first in drawn]
    for (second, first), ours in zip(drawn[:20], found, strict=False):
        truth = np.r_[np.ones(len(second)), np.zeros(len(first))]
        assert ours == pytest.approx(roc_auc_score(truth, np.r_[second, first]))
    errors = [two_sample.standard_error(second, first) for second, first in drawn]
    assert np.mean(errors) == pytest.approx(np.std(found), rel=0.15)


def test_the_test_keeps_its_level() -> None:
    """Of 60 comparisons of equal parts, about 3 are below 0.05."""
    labels = np.repeat(np.arange(3), 40)
    p = []
    for seed in range(60):
        random = np.random.default_rng(seed)
        vectors = random.standard_normal((120, 5)).astype(np.float32)
        p.append(two_sample.tell_apart(vectors, labels, random.permutation(120) % 2, str(seed)).p)
    assert 0 <= np.count_nonzero(np.array(p) <= 0.05) <= 9
    assert 0.35 < np.mean(p) < 0.65
