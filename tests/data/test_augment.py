from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchstone.core.errors import ConfigError
from torchstone.data.augment import POLICIES, augment, check_policy, uniform

IMAGES = np.random.default_rng(0).integers(0, 256, (32, 40, 40, 3), dtype=np.uint8)


@given(order=st.permutations(range(32)), epoch=st.integers(0, 50), policy=st.sampled_from(POLICIES))
def test_a_sample_is_changed_the_same_way_in_every_batch(order: list[int], epoch: int, policy: str) -> None:
    rows = np.arange(32)
    whole = augment(IMAGES, rows, 32, policy, 5, epoch)
    shuffled = np.array(order)
    assert np.array_equal(augment(IMAGES[shuffled], shuffled, 32, policy, 5, epoch), whole[shuffled])
    assert np.array_equal(augment(IMAGES[3:5], rows[3:5], 32, policy, 5, epoch), whole[3:5])


def test_epochs_and_seeds_differ() -> None:
    rows = np.arange(32)
    first = augment(IMAGES, rows, 32, "standard", 5, 0)
    assert not np.array_equal(first, augment(IMAGES, rows, 32, "standard", 5, 1))
    assert not np.array_equal(first, augment(IMAGES, rows, 32, "standard", 6, 0))


def test_none_is_the_centre_crop() -> None:
    assert np.array_equal(augment(IMAGES, np.arange(32), 32, "none", 5, 0), IMAGES[:, 4:36, 4:36])


def test_an_image_without_room_is_padded() -> None:
    assert augment(IMAGES, np.arange(32), 40, "light", 5, 0).shape == (32, 40, 40, 3)


@pytest.mark.parametrize("draw", [0, 1, 2])
def test_draws_are_uniform_and_independent_between_neighbours(draw: int) -> None:
    numbers = uniform(3, 1, np.arange(200_000), draw=draw)
    counts, _ = np.histogram(numbers, bins=100, range=(0, 1))
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert ((counts - 2000) ** 2 / 2000).sum() < 160  # chi-square with 99 degrees: 1 in 10,000
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.01
    assert abs(np.corrcoef(numbers, uniform(3, 2, np.arange(200_000), draw=draw))[0, 1]) < 0.01


def test_an_unknown_policy_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'standard'"):
        check_policy("standart")
