"""Fresh weights have the published spread."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from torchstone.models import weights, zoo
from torchstone.train.initial import initialise

LAYERS = {
    "convolution": (nn.Conv2d(64, 128, 3), 64 * 9, 128 * 9),
    "depthwise": (nn.Conv2d(512, 512, 5, groups=512), 25, 25),
    "linear": (nn.Linear(400, 300), 400, 300),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_the_spread_is_the_papers(layer: str) -> None:
    module, inputs, outputs = LAYERS[layer]
    torch.manual_seed(0)
    initialise(module, "kaiming", None)
    assert module.weight.std().item() == pytest.approx(math.sqrt(2 / inputs), rel=0.02)
    assert module.bias is not None
    assert not module.bias.any()
    initialise(module, "xavier", None)
    assert module.weight.std().item() == pytest.approx(math.sqrt(2 / (inputs + outputs)), rel=0.02)
    assert module.weight.abs().max().item() == pytest.approx(math.sqrt(6 / (inputs + outputs)), rel=0.01)


def test_kaiming_keeps_the_signal_through_many_layers() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(*[part for _ in range(20) for part in (nn.Linear(256, 256), nn.ReLU())])
    x = torch.randn(64, 256)
    with torch.no_grad():
        usual = layers(x).square().mean().item()
        initialise(layers, "kaiming", None)
        kept = layers(x).square().mean().item()
    assert 0.3 < kept < 3
    assert usual < 0.01, "what torch does by default dies out"


def test_what_was_loaded_stays() -> None:
    torch.manual_seed(0)
    network, other = zoo.build("resnet20", classes=3), zoo.build("resnet20", classes=7)
    fresh = weights.load_into(network, other.state_dict(), "other")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    initialise(network, "kaiming", fresh)
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == set(fresh) == {"14.weight", "14.bias"}
    initialise(network, "default", None)
    assert torch.equal(network.state_dict()["0.weight"], before["0.weight"])
