"""Groups of parameters, against timm's; what a group's scale does."""

from __future__ import annotations

import pytest
import torch
from timm.optim._param_groups import param_groups_layer_decay
from torch import nn

from torchstone.models import zoo
from torchstone.train import optim
from torchstone.train.recipe import Recipe


@pytest.mark.parametrize("architecture", ["timm:resnet18", "timm:tf_efficientnet_lite0", "timm:vit_tiny_patch16_224"])
def test_layer_decay_is_that_of_timm(architecture: str) -> None:
    network = zoo.build(architecture, classes=5)
    spared = getattr(network, "no_weight_decay", set)()
    theirs = param_groups_layer_decay(network, weight_decay=0.1, no_weight_decay_list=spared, layer_decay=0.7)
    expected = {id(p): (group["lr_scale"], group["weight_decay"]) for group in theirs for p in group["params"]}
    ours = optim.optimiser(network, Recipe(layer_decay=0.7, weight_decay=0.1)).param_groups
    found = {id(p): (group["scale"], group["weight_decay"]) for group in ours for p in group["params"]}
    assert found.keys() == {id(parameter) for parameter in network.parameters()}
    for parameter, (scale, decay) in expected.items():
        assert found[parameter] == (pytest.approx(scale), decay)


@pytest.mark.parametrize(("architecture", "layers"), [("lenet5", 5), ("resnet20", 11), ("torchvision:resnet18", 10)])
def test_a_block_is_one_layer(architecture: str, layers: int) -> None:
    network = zoo.build(architecture, classes=5)
    found = optim.layers_of(network)
    assert sorted(set(found.values())) == list(range(layers))
    head, _ = zoo.head(network)
    assert found[f"{head}.weight"] == layers - 1
    numbers = [found[name] for name, _ in network.named_parameters()]
    assert numbers == sorted(numbers), "from the input to the head"


def test_all_layers_are_alike_without_layer_decay_and_norms_and_biases_do_not_decay() -> None:
    groups = optim.optimiser(zoo.build("resnet20", classes=10), Recipe(weight_decay=0.1)).param_groups
    assert {group["weight_decay"]: {p.ndim for p in group["params"]} for group in groups} == {0.1: {2, 4}, 0.0: {1}}
    assert {group["scale"] for group in groups} == {1.0}


def test_a_rate_is_set_by_each_groups_scale() -> None:
    optimiser = optim.optimiser(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4)), Recipe(layer_decay=0.5, lr=1.0))
    optim.set_rate(optimiser, 0.2)
    assert [group["lr"] for group in optimiser.param_groups] == [0.1, 0.1, 0.2, 0.2]


def test_norms_and_biases_have_a_rate_of_their_own() -> None:
    groups = optim.optimiser(zoo.build("resnet20", classes=10), Recipe(bias_rate=64)).param_groups
    assert {group["scale"]: {p.ndim for p in group["params"]} for group in groups} == {1.0: {2, 4}, 64.0: {1}}


@pytest.mark.parametrize(
    ("name", "kind", "key"),
    [
        ("sgd", torch.optim.SGD, "momentum"),
        ("adamw", torch.optim.AdamW, "betas"),
        ("radam", torch.optim.RAdam, "betas"),
    ],
)
def test_the_optimisers_are_torchs_and_take_a_momentum(name: str, kind: type, key: str) -> None:
    optimiser = optim.optimiser(nn.Linear(2, 2), Recipe(optimiser=name))  # pyright: ignore[reportArgumentType]
    assert type(optimiser) is kind
    optim.set_momentum(optimiser, 0.7)
    values = {group[key] for group in optimiser.param_groups}
    assert values == ({0.7} if key == "momentum" else {(0.7, 0.999)})
    if name == "radam":
        assert all(group["decoupled_weight_decay"] for group in optimiser.param_groups), "as AdamW decays"
    if name == "sgd":
        assert all(group["nesterov"] for group in optimiser.param_groups)


def test_a_frozen_parameter_stays_and_learns_when_it_thaws() -> None:
    layer = nn.Linear(2, 2)
    optimiser = optim.optimiser(layer, Recipe(weight_decay=0.5, lr=0.1))
    before = layer.weight.detach().clone()
    for trains in (False, True):
        layer.weight.requires_grad_(trains)
        optimiser.zero_grad()
        layer(torch.ones(1, 2)).sum().backward()
        optimiser.step()
        assert torch.equal(layer.weight, before) != trains, "decay is not applied to what is frozen"
