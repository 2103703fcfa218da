"""Images that grow over a training."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torchstone.core.errors import ConfigError
from torchstone.models import zoo
from torchstone.train import sizes
from torchstone.train.recipe import Recipe


def test_sides_of_a_training() -> None:
    recipe = Recipe(epochs=10, first_size=0.5, full_size=0.8)
    assert [sizes.side(recipe, epoch, 224) for epoch in range(10)] == [112, 128, 144, 160, 160, 176, 192, 208, 224, 224]
    assert {sizes.side(Recipe(epochs=10), epoch, 224) for epoch in range(10)} == {224}


@given(
    epochs=st.integers(1, 40),
    first=st.floats(0.01, 1),
    full=st.floats(0.01, 1),
    crop=st.sampled_from([28, 32, 64, 224, 299]),
)
def test_sides_only_grow_and_end_at_the_crop(epochs: int, first: float, full: float, crop: int) -> None:
    recipe = Recipe(epochs=epochs, first_size=first, full_size=full)
    sides = [sizes.side(recipe, epoch, crop) for epoch in range(epochs)]
    assert sides == sorted(sides)
    assert sides[0] >= 4
    assert max(sides) <= crop
    assert sizes.side(recipe, epochs, crop) == crop
    assert all(side == crop or side % 4 == 0 for side in sides)


def test_pixels_are_averaged_not_left_out() -> None:
    x = (torch.arange(16) % 2).repeat(16, 1).to(torch.uint8).view(1, 1, 16, 16) * 200
    small = sizes.resized(x, 8)
    assert small.dtype == torch.uint8
    assert small[..., 1:-1].float().sub(100).abs().max() <= 1, "stripes of 0 and 200 become grey"
    floating = sizes.resized(x.float(), 8)
    assert torch.allclose(small.float(), floating, atol=0.5)
    assert sizes.resized(x, 16) is x


def test_a_network_of_one_size_is_refused_before_it_trains() -> None:
    recipe = Recipe(first_size=0.5)
    with pytest.raises(ConfigError, match="no images of 16 pixels"):
        sizes.check(zoo.build("lenet5", classes=3), recipe, 32, 3)
    network = zoo.build("resnet20", classes=3).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    sizes.check(network, recipe, 32, 3)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
