from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from torchstone.core.errors import ConfigError
from torchstone.data.sampling import check_classes, check_sampler, class_weights, epoch_of

CLASSES = ("rose", "tulip", "weed")
COUNTS = st.lists(st.integers(1, 60), min_size=1, max_size=8)
SAMPLERS = st.sampled_from(["shuffle", "sqrt", "balanced"])


class Set:
    """Images whose pixels are their row (contracts.ImageSet)."""

    def __init__(self, counts: list[int]) -> None:
        self.labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
        self.items = [str(row) for row in range(len(self.labels))]

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, rows: Any) -> NDArray[np.uint8]:
        return np.arange(len(self), dtype=np.uint8)[rows, None, None, None]

    stored = images

    def encoded(self, row: int) -> bytes:
        return bytes([row])


def drawn(counts: list[int], sampler: str, epoch: int = 0, seed: int = 1) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The images that an epoch shows (their numbers in the part), and their rows."""
    inner = Set(counts)
    images, order = epoch_of(inner, sampler, seed, epoch, CLASSES)
    found = np.array([int(item) for item in np.array(images.items)[order]])
    assert np.array_equal(images.labels[order], inner.labels[found])
    assert np.array_equal(images.images(order)[:, 0, 0, 0], found.astype(np.uint8))
    assert [images.encoded(int(row)) for row in order[:3]] == [bytes([row]) for row in found[:3]]
    return found, order


@given(counts=COUNTS, sampler=SAMPLERS, epoch=st.integers(0, 9))
def test_an_epoch_has_as_many_images_whatever_the_sampler(counts: list[int], sampler: str, epoch: int) -> None:
    counts = [min(count, 255 // len(counts)) for count in counts]
    found, order = drawn(counts, sampler, epoch)
    assert len(found) == sum(counts)
    assert len(np.unique(order)) == len(order), "an image that comes again has a row of its own"
    again, once_more = drawn(counts, sampler, epoch)
    assert np.array_equal(found, again)
    assert np.array_equal(order, once_more)


@given(counts=COUNTS, sampler=SAMPLERS)
def test_shares_are_met_to_the_image(counts: list[int], sampler: str) -> None:
    counts = [min(count, 255 // len(counts)) for count in counts]
    found, _ = drawn(counts, sampler)
    power = {"shuffle": 1.0, "sqrt": 0.5, "balanced": 0.0}[sampler]
    share = np.array(counts) ** power / (np.array(counts) ** power).sum()
    got = np.bincount(Set(counts).labels[found], minlength=len(counts))
    assert (np.abs(got - share * sum(counts)) < 1).all()


@given(counts=COUNTS)
def test_no_image_comes_again_before_all_of_its_class_came(counts: list[int]) -> None:
    """Over several epochs, the images of a class are seen equally often, to within one."""
    counts = [min(count, 255 // len(counts)) for count in counts]
    labels = Set(counts).labels
    seen = np.zeros(len(labels), int)
    for epoch in range(5):
        found, _ = drawn(counts, "balanced", epoch)
        seen += np.bincount(found, minlength=len(labels))
        for label in range(len(counts)):
            of_class = seen[labels == label]
            assert of_class.max() - of_class.min() <= 1


def test_shuffle_takes_the_images_themselves() -> None:
    inner = Set([20, 30])
    images, order = epoch_of(inner, "shuffle", 1, 0)
    assert images is inner
    assert sorted(order) == list(range(50))
    assert not np.array_equal(order, epoch_of(inner, "shuffle", 1, 1)[1])
    assert not np.array_equal(order, epoch_of(inner, "shuffle", 2, 0)[1])


def test_weights_by_class() -> None:
    """An image of 'weed' comes four times as often as another one."""
    found, _ = drawn([60, 60, 30], "weed=4, tulip=1")
    assert np.bincount(Set([60, 60, 30]).labels[found]).tolist() == [38, 37, 75]


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        ("ballanced", "did you mean 'balanced'"),
        ("rose=", "'rose=' is not a class with its weight"),
        ("rose=0", "is a number above 0"),
        ("rose=nan", "is a number above 0"),
        ("rose=inf", "is a number above 0"),
        ("rose=2,tulip", "unknown sampler"),
    ],
)
def test_a_sampler_that_is_none(sampler: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        check_sampler(sampler)


def test_a_weight_for_no_class() -> None:
    check_classes("rose=2,weed=3", CLASSES)
    check_classes("balanced", CLASSES)
    with pytest.raises(ConfigError, match="did you mean 'tulip'"):
        check_classes("rose=2,tulp=3", CLASSES)


def test_effective_numbers_are_those_of_the_paper() -> None:
    """CIFAR-10 made long-tailed by 100, β = 0.9999: the head has 5,000 images, of which 3,935 are effective."""
    counts = [5000, 500, 50]
    labels = np.repeat(np.arange(3), counts)
    weights = class_weights(labels, 3, 0.9999).astype(float)
    effective = (1 - 0.9999 ** np.array(counts)) / (1 - 0.9999)
    assert effective[0] == pytest.approx(3934.8, abs=0.1)
    assert weights * effective == pytest.approx(np.full(3, weights[0] * effective[0]), rel=1e-5)
    assert weights[labels].mean() == pytest.approx(1, rel=1e-5)


def test_the_ends_of_beta() -> None:
    labels = np.repeat(np.arange(3), [100, 10, 1])
    assert class_weights(labels, 3, 0.0).tolist() == [1, 1, 1]
    inverse = class_weights(labels, 4, 1 - 1e-12).astype(float)
    assert inverse * [100, 10, 1, 1] == pytest.approx(np.full(4, inverse[2]), rel=1e-4)
    assert inverse[3] == inverse[2], "a class without images weighs as much as one with a single image"
