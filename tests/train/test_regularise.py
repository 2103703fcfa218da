"""Dropout and stochastic depth on networks that are built."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import nn

from torchstone.core.errors import ConfigError
from torchstone.models import zoo
from torchstone.train.recipe import Recipe
from torchstone.train.regularise import DropPath, dropouts


def rates(network: nn.Module) -> list[float]:
    return [module.p for module in network.modules() if isinstance(module, DropPath)]


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "convnext_atto"])
def test_drop_path_is_timms(name: str) -> None:
    built: Any = timm.create_model(name, drop_path_rate=0.2)
    theirs = [module.drop_prob for module in built.modules() if type(module).__name__ == "DropPath"]
    network = timm.create_model(name)
    names = list(network.state_dict())
    dropouts(network, Recipe(drop_path=0.2))
    assert [rate for rate in rates(network) if rate] == pytest.approx(theirs)
    assert list(network.state_dict()) == names


@pytest.mark.parametrize(
    "architecture", ["resnet20", "resnet9", "timm:tf_efficientnet_lite0", "torchvision:efficientnet_b0"]
)
def test_drop_path_rises_from_the_first_block_to_the_last(architecture: str) -> None:
    network = zoo.build(architecture, classes=3)
    dropouts(network, Recipe(drop_path=0.3))
    found = rates(network)
    assert found[0] == 0
    assert found[-1] == 0.3
    assert found == sorted(found)
    dropouts(network, Recipe(drop_path=0.1))
    assert max(rates(network)) == 0.1
    assert len(rates(network)) == len(found), "set anew, not added"


def test_a_path_is_dropped_for_a_whole_image_and_its_mean_stays() -> None:
    torch.manual_seed(0)
    x = torch.ones(4000, 2, 3, 3)
    seen = DropPath(0.25)(x)
    assert {round(value, 6) for value in seen.unique().tolist()} == {0.0, round(1 / 0.75, 6)}
    assert torch.equal(seen.amax((1, 2, 3)), seen.amin((1, 2, 3)))
    assert seen.mean().item() == pytest.approx(1, abs=0.03)
    assert torch.equal(DropPath(0.25).eval()(x), x)


def test_a_network_without_branches_is_refused() -> None:
    with pytest.raises(ConfigError, match="no residual branches"):
        dropouts(zoo.build("lenet5", classes=3), Recipe(drop_path=0.1))


def test_the_networks_own_dropouts_are_set() -> None:
    alexnet = zoo.build("torchvision:alexnet", classes=3)
    dropouts(alexnet, Recipe(dropout=0.3))
    assert [module.p for module in alexnet.modules() if isinstance(module, nn.Dropout)] == [0.3, 0.3]
    built: Any = timm.create_model("resnet18", drop_rate=0.4)
    dropouts(built, Recipe(dropout=0.1))
    assert built.drop_rate == 0.1
    assert not built.fc._forward_pre_hooks


@pytest.mark.parametrize("architecture", ["lenet5", "resnet20", "timm:resnet18"])
def test_without_one_it_stands_before_the_head(architecture: str) -> None:
    torch.manual_seed(0)
    network = zoo.build(architecture, classes=3).eval()
    x = torch.randn(2, 3, 32, 32)
    expected, names = network(x), list(network.state_dict())
    dropouts(network, Recipe(dropout=0.5))
    assert torch.equal(network(x), expected)
    assert list(network.state_dict()) == names
    _, head = zoo.head(network)
    seen: list[torch.Tensor] = []
    head.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    network.train()(x)
    head(torch.ones(200, seen[0].shape[1]))
    assert (seen[1] == 0).float().mean().item() == pytest.approx(0.5, abs=0.02)
    assert seen[1].max() == 2
    plain = zoo.build(architecture, classes=3)
    dropouts(plain, Recipe())
    assert not zoo.head(plain)[1]._forward_pre_hooks
