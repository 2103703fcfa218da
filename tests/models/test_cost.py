from __future__ import annotations

import pytest
import torch

from torchstone.models import zoo
from torchstone.models.cost import cost, cost_of


def test_lenet5_by_hand() -> None:
    found = cost("lenet5", classes=10, crop=32, channels=1)
    assert found.parameters == 61_706
    assert found.layers == {"0": 28 * 28 * 6 * 25, "3": 10 * 10 * 16 * 150, "7": 400 * 120, "9": 120 * 84, "11": 840}
    assert found.macs == sum(found.layers.values())


@pytest.mark.parametrize("architecture", ["resnet20", "torchvision:mobilenet_v3_small", "torchvision:squeezenet1_1"])
def test_the_layers_account_for_all_that_torch_counts(architecture: str) -> None:
    found = cost(architecture, classes=10, crop=64)
    assert sum(found.layers.values()) == found.macs


def test_counting_leaves_the_network_as_it_was() -> None:
    network = zoo.build("lenet5", classes=10).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    cost_of(network, torch.zeros(1, 3, 32, 32))
    assert network.training
    assert not any(module._forward_hooks for module in network.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
