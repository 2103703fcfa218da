"""From a name to a network: torchstone's own, then timm's, then torchvision's.

A stored name is never ambiguous: ``lenet5``, ``timm:resnet18``, ``torchvision:alexnet``; ``efficientnet:1.5`` is
EfficientNet at φ = 1.5 (``scaling``).
"""

from __future__ import annotations

import contextlib
import importlib
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from torchstone.core.errors import ConfigError, MissingPackageError, nearest
from torchstone.core.registry import missing_packages
from torchstone.core.values import IMAGENET_MEAN, IMAGENET_STD
from torchstone.models import scaling

SMALL_SIZE = 32
SCALED = "efficientnet"


@dataclass(frozen=True, kw_only=True)
class NativeInput:
    """The input that a network was designed for: what to do when the user does not say otherwise."""

    crop: int
    resize: int
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)


def own_names() -> list[str]:
    """The networks of ``architectures/``."""
    folder = Path(__file__).parent / "architectures"
    return sorted(file.stem for file in folder.glob("*.py") if file.stem != "__init__")


def resolve(name: str) -> str:
    """The full name of ``name``: itself for our own networks, else with ``timm:`` or ``torchvision:`` before it."""
    source, _, rest = name.rpartition(":")
    if source in ("timm", "torchvision"):
        if rest not in _library_names(source):
            raise ConfigError(f"{source} has no model '{rest}'", hint=nearest(rest, _library_names(source)))
        return name
    if source == SCALED:
        return f"{SCALED}:{_phi(rest):g}"
    if source:
        raise ConfigError(f"unknown source of models '{source}'", hint=f"known: timm, torchvision, {SCALED}")
    if name in own_names():
        return name
    for library in ("timm", "torchvision"):
        if not missing_packages((library,)) and name in _library_names(library):
            return f"{library}:{name}"
    installed = [library for library in ("timm", "torchvision") if not missing_packages((library,))]
    known = [*own_names(), *(known for library in installed for known in _library_names(library))]
    hint = nearest(name, known)
    raise ConfigError(
        f"unknown model '{name}'",
        hint=hint
        if hint.startswith("did")
        else f"own: {', '.join(own_names())}; or any name that timm or torchvision knows",
    )


def build(architecture: str, *, classes: int, channels: int = 3, small_input: bool = False) -> nn.Module:
    """A network with fresh weights. ``architecture`` is a full name (see ``resolve``).

    With ``small_input`` the first convolution keeps the resolution and the pooling after it is left out, as is usual
    for ResNets on 32×32 images. Draws from torch's global generator: seed it before.
    """
    source, _, name = architecture.rpartition(":")
    if source == "timm":
        with _quiet():
            import timm

            network = timm.create_model(name, pretrained=False, num_classes=classes, in_chans=channels)
    elif source == "torchvision":
        network = _from_torchvision(name, classes, channels)
    elif source == SCALED:
        with _quiet():
            network = scaling.build(scaling.compound(_phi(name)), classes=classes, inputs=channels)
    else:
        module = importlib.import_module(f"torchstone.models.architectures.{name}")
        network = getattr(module, name)(classes, channels)
    if small_input:
        if not source:
            raise ConfigError(f"'{name}' is made for small images already", hint="leave --small-input out")
        _adapt_to_small_input(network, architecture)
    return network


def native_input(architecture: str) -> NativeInput:
    """What the network was designed for, from timm's record of it where there is one."""
    source, _, name = architecture.rpartition(":")
    if source == "timm":
        with _quiet():
            import timm

            config = timm.get_pretrained_cfg(name)
        if config is not None:
            crop = config.input_size[-1]
            return NativeInput(
                crop=crop,
                resize=round(crop / (config.crop_pct or 1.0)),
                interpolation=config.interpolation if config.interpolation in ("bilinear", "bicubic") else "bicubic",
                mean=tuple(config.mean),
                std=tuple(config.std),
            )
    if source == SCALED:
        crop = scaling.compound(_phi(name)).resolution
        return NativeInput(
            crop=crop, resize=round(crop / 0.875), interpolation="bicubic", mean=IMAGENET_MEAN, std=IMAGENET_STD
        )
    if source:
        return NativeInput(crop=224, resize=256, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    return NativeInput(crop=SMALL_SIZE, resize=SMALL_SIZE)


def head(network: nn.Module) -> tuple[str, nn.Module]:
    """Name and module of the layer that gives the logits: the last linear one or, without any, the last convolution."""
    layers = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    linear = [pair for pair in layers if isinstance(pair[1], nn.Linear)]
    if not layers:
        raise ConfigError("this network has no linear and no convolutional layer", hint="choose a CNN")
    return (linear or layers)[-1]


def _phi(text: str) -> float:
    """φ of ``efficientnet:φ``, 0 to ``scaling.LARGEST``."""
    try:
        phi = float(text)
    except ValueError:
        phi = math.nan
    if not 0 <= phi <= scaling.LARGEST:
        raise ConfigError(
            f"'{SCALED}:{text}' names no φ from 0 to {scaling.LARGEST:g}",
            hint=f"{SCALED}:0 is B0, {SCALED}:1 is close to B2; timm has the published ones, such as efficientnet_b0",
        )
    return phi


def _library_names(library: str) -> list[str]:
    if missing_packages((library,)):
        raise MissingPackageError(f"a model of {library}", [library])
    with _quiet():
        if library == "timm":
            import timm

            return timm.list_models()
        from torchvision import models

        return models.list_models(module=models)


def _from_torchvision(name: str, classes: int, channels: int) -> nn.Module:
    from torchvision import models

    with _quiet():
        extra = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
        network = models.get_model(name, weights=None, num_classes=classes, **extra)
    if channels != 3:
        parent, attribute, first = _first_convolution(network, name)
        fresh = nn.Conv2d(
            channels, first.out_channels, _pair(first.kernel_size), _pair(first.stride), _pair(first.padding),
            bias=first.bias is not None,
        )  # fmt: skip
        setattr(parent, attribute, fresh)
    return network


def _adapt_to_small_input(network: nn.Module, architecture: str) -> None:
    """Stride 1 in the first convolution (3×3 where it was larger) and no max pooling in the stem."""
    parent, attribute, first = _first_convolution(network, architecture)
    kernel = min(_pair(first.kernel_size)[0], 3)
    fresh = nn.Conv2d(
        first.in_channels, first.out_channels, kernel, stride=1, padding=kernel // 2, bias=first.bias is not None
    )
    nn.init.kaiming_normal_(fresh.weight, mode="fan_out", nonlinearity="relu")
    setattr(parent, attribute, fresh)
    if isinstance(getattr(network, "maxpool", None), nn.MaxPool2d):
        network.maxpool = nn.Identity()


def _first_convolution(network: nn.Module, architecture: str) -> tuple[nn.Module, str, nn.Conv2d]:
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            parent, _, attribute = name.rpartition(".")
            return network.get_submodule(parent), attribute, module
    raise ConfigError(f"'{architecture}' has no convolution", hint="choose a CNN")


def _pair(value: int | tuple[int, ...] | str) -> tuple[int, int]:
    if isinstance(value, tuple):
        return value[0], value[-1]
    if isinstance(value, int):
        return value, value
    raise ConfigError(f"a first convolution with padding '{value}' cannot be replaced", hint="choose another model")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings that the libraries give of themselves while they are imported or build a model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def parameters(network: nn.Module) -> int:
    """Number of trainable values."""
    return sum(parameter.numel() for parameter in network.parameters())


def input_like(crop: int, channels: int = 3) -> torch.Tensor:
    """float32[1, channels, crop, crop] of zeros, for tracing."""
    return torch.zeros(1, channels, crop, crop)
