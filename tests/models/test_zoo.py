from __future__ import annotations

import pytest
import torch
from torch import nn

from torchstone.core.errors import ConfigError
from torchstone.models import zoo


def test_lenet5_has_the_published_number_of_parameters() -> None:
    assert zoo.parameters(zoo.build("lenet5", classes=10, channels=1)) == 61_706


@pytest.mark.parametrize("name", zoo.own_names())
@pytest.mark.parametrize("channels", [1, 3])
def test_own_networks_take_small_images(name: str, channels: int) -> None:
    network = zoo.build(name, classes=7, channels=channels).eval()
    assert network(torch.zeros(2, channels, 32, 32)).shape == (2, 7)


@pytest.mark.parametrize(
    ("asked", "full"),
    [
        ("lenet5", "lenet5"),
        ("resnet18", "timm:resnet18"),
        ("alexnet", "torchvision:alexnet"),
        ("timm:vgg11", "timm:vgg11"),
    ],
)
def test_names_resolve_to_one_source(asked: str, full: str) -> None:
    assert zoo.resolve(asked) == full


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        ("lenet", "did you mean"),
        ("tim:resnet18", "known: timm"),
        ("timm:resnet19", "did you mean 'resnet18'"),
        ("resnet19", "did you mean 'resnet18'"),
    ],
)
def test_unknown_names_get_a_hint(asked: str, hint: str) -> None:
    with pytest.raises(ConfigError, match="hint") as caught:
        zoo.resolve(asked)
    assert hint in str(caught.value)


@pytest.mark.parametrize("architecture", ["timm:resnet18", "torchvision:resnet18", "torchvision:mobilenet_v3_small"])
def test_small_input_keeps_the_resolution_of_the_first_layer(architecture: str) -> None:
    usual = zoo.build(architecture, classes=5)
    small = zoo.build(architecture, classes=5, small_input=True)

    def first_stride(network: nn.Module) -> int:
        return next(module.stride[0] for module in network.modules() if isinstance(module, nn.Conv2d))

    assert (first_stride(usual), first_stride(small)) == (2, 1)
    assert small.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 5)


def test_small_input_is_refused_where_it_means_nothing() -> None:
    with pytest.raises(ConfigError, match="made for small images"):
        zoo.build("lenet5", classes=10, small_input=True)


@pytest.mark.parametrize(
    "architecture", ["timm:resnet18", "torchvision:alexnet", "lenet5", "torchvision:squeezenet1_1"]
)
def test_head_is_the_layer_that_gives_the_logits(architecture: str) -> None:
    _, layer = zoo.head(zoo.build(architecture, classes=13))
    assert getattr(layer, "out_features", getattr(layer, "out_channels", None)) == 13


def test_grey_torchvision_model() -> None:
    network = zoo.build("torchvision:alexnet", classes=3, channels=1).eval()
    assert network(torch.zeros(1, 1, 224, 224)).shape == (1, 3)


def test_native_input_comes_from_the_library() -> None:
    native = zoo.native_input("timm:resnet18")
    assert native.crop == 224
    assert native.mean == pytest.approx((0.485, 0.456, 0.406))
