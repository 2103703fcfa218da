"""Fresh weights have the published spread."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from torchstone.core.contracts import ImageSet
from torchstone.core.errors import ConfigError
from torchstone.core.values import Artifact
from torchstone.data.preprocess import default_preprocess
from torchstone.models import weights, zoo
from torchstone.models.deployable import Deployable
from torchstone.stages.read import Data
from torchstone.train.initial import initialise, whiten

LAYERS = {
    "convolution": (nn.Conv2d(64, 128, 3), 64 * 9, 128 * 9),
    "depthwise": (nn.Conv2d(512, 512, 5, groups=512), 25, 25),
    "linear": (nn.Linear(400, 300), 400, 300),
}


@pytest.fixture(scope="module")
def digits(data: Data, trained: Artifact) -> ImageSet:
    return data.sets(trained, "train")["train"]


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


def test_dirac_passes_channels_on() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 12, 3, padding=1, bias=False)
    before = layer.weight.detach().clone()
    initialise(layer, "dirac", None)
    x = torch.randn(2, 8, 5, 5)
    assert torch.equal(layer(x)[:, :8], x)
    assert torch.equal(layer.weight[8:], before[8:])


@pytest.mark.parametrize("architecture", ["airbench", "resnet9"])
def test_whitened_filters_see_uncorrelated_values(architecture: str, digits: ImageSet) -> None:
    torch.manual_seed(0)
    network = zoo.build(architecture, classes=10)
    model = Deployable(network, default_preprocess(32))
    whiten(model, digits)
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    half = min(first.weight[0].numel(), first.out_channels // 2)
    with torch.no_grad():
        seen = nn.functional.conv2d(model.normalise(torch.from_numpy(digits.images(slice(None)))), first.weight)
    values = seen.permute(1, 0, 2, 3).flatten(1)
    assert torch.equal(values[:half], -values[half : 2 * half])
    together = (values[:half] @ values[:half].T / values.shape[1]).numpy()
    spread = together.diagonal()
    assert spread[0] == pytest.approx(1, abs=0.02)
    assert abs(together - np.diag(spread)).max() < 0.01


def test_a_network_without_filters_of_its_own_cannot_be_whitened(digits: ImageSet) -> None:
    model = Deployable(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2)), default_preprocess(32))
    with pytest.raises(ConfigError, match="whiten"):
        whiten(model, digits)
