"""Layers that stay as they are, and what is said of patterns that match none."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torchstone.core.errors import ConfigError
from torchstone.models import zoo
from torchstone.train import freezing
from torchstone.train.recipe import Recipe


def trainable(network: nn.Module) -> set[str]:
    return {name for name, parameter in network.named_parameters() if parameter.requires_grad}


@pytest.fixture
def resnet() -> nn.Module:
    return zoo.build("timm:resnet18", classes=4)


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (("backbone",), lambda name: name.startswith("fc.")),
        (("layer1", "layer2.*"), lambda name: not name.startswith(("layer1.", "layer2."))),
        (("*bn?",), lambda name: ".bn" not in name and not name.startswith("bn")),
        (("conv1.weight",), lambda name: name != "conv1.weight"),
        ((), bool),
    ],
)
def test_patterns_choose_layers(resnet: nn.Module, patterns: tuple[str, ...], expected: object) -> None:
    assert callable(expected)
    changed = freezing.freeze(resnet, Recipe(freeze=patterns), 0)
    names = {name for name, _ in resnet.named_parameters()}
    assert trainable(resnet) == {name for name in names if expected(name)}
    assert changed == bool(patterns)
    assert not freezing.freeze(resnet, Recipe(freeze=patterns), 1), "nothing new in the next epoch"


def test_frozen_layers_thaw_by_schedule(resnet: nn.Module) -> None:
    recipe = Recipe(freeze=("backbone",), unfreeze=0.5, epochs=4)
    found = []
    for epoch in range(4):
        changed = freezing.freeze(resnet, recipe, epoch)
        found.append((changed, len(trainable(resnet))))
    whole = len(list(resnet.parameters()))
    assert found == [(True, 2), (False, 2), (True, whole), (False, whole)]


@pytest.mark.parametrize(
    ("pattern", "hint"), [("layr1.*", "layer1"), ("fc2", "fc"), ("xyz", "known: backbone, bn1, conv1")]
)
def test_a_pattern_that_matches_nothing_is_refused(resnet: nn.Module, pattern: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        freezing.freeze(resnet, Recipe(freeze=(pattern,)), 0)


def test_something_has_to_train(resnet: nn.Module) -> None:
    with pytest.raises(ConfigError, match="no layer to be trained"):
        freezing.freeze(resnet, Recipe(freeze=("backbone", "fc")), 0)


@pytest.mark.parametrize(
    ("options", "moved"),
    [
        ({}, {"1", "4"}),
        ({"freeze": ("0", "1")}, {"4"}),
        ({"freeze_norms": True}, set()),
        ({"freeze": ("0",)}, {"1", "4"}),
    ],
)
def test_frozen_batch_norms_keep_their_statistics(options: dict[str, object], moved: set[str]) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4),
        nn.Flatten(), nn.Linear(4 * 16, 2),
    )  # fmt: skip
    recipe = Recipe.model_validate(options)
    freezing.freeze(network, recipe, 0)
    freezing.train_mode(network, recipe)
    network(torch.randn(8, 3, 8, 8))
    state = network.state_dict()
    assert {number for number in ("1", "4") if state[f"{number}.running_mean"].abs().sum() > 0} == moved
    assert network[0].training
