"""Dropout and stochastic depth, set on a network that is built."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules.dropout import _DropoutNd

from torchstone.core.errors import ConfigError
from torchstone.models import zoo
from torchstone.train.recipe import Recipe


class DropPath(nn.Module):
    """Stochastic depth (Huang et al. 2016): a residual branch is left out for an image with probability ``p``, and
    counts more where it stays. It has no parameters, and does nothing in eval mode."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or not self.p:
            return x
        stays = x.new_empty((len(x), *[1] * (x.ndim - 1))).bernoulli_(1 - self.p)
        return x * stays / (1 - self.p)

    def extra_repr(self) -> str:
        return f"p={self.p:g}"


def dropouts(network: nn.Module, recipe: Recipe) -> None:
    """Set the probabilities that the recipe names; None leaves the network's own. The weights keep their names.

    ``dropout`` goes to the network's own dropouts where it has some that do anything, else it is put before the head.
    ``drop_path`` is the last block's, and rises linearly from 0 at the first one. Raises a ConfigError for a network
    without residual branches.
    """
    if recipe.dropout is not None:
        _set_dropout(network, recipe.dropout)
    if recipe.drop_path is not None:
        _set_drop_path(network, recipe.drop_path)


def _set_dropout(network: nn.Module, p: float) -> None:
    own = [module for module in network.modules() if isinstance(module, _DropoutNd) and module.p > 0]
    rated: list[Any] = [
        module for module in network.modules() if isinstance(rate := getattr(module, "drop_rate", None), float) and rate
    ]  # timm's networks call the function
    for module in own:
        module.p = p
    for module in rated:
        module.drop_rate = p
    if not own and not rated and p:
        _, head = zoo.head(network)
        head.register_forward_pre_hook(
            lambda module, inputs: (functional.dropout(inputs[0], p, module.training), *inputs[1:])
        )


def _set_drop_path(network: nn.Module, p: float) -> None:
    blocks = _branches(network)
    if not blocks:
        raise ConfigError("this network has no residual branches to drop", hint="leave drop_path out, or use dropout")
    for number, (block, slots) in enumerate(blocks):
        rate = p * number / max(1, len(blocks) - 1)
        for slot in slots:
            setattr(block, slot, DropPath(rate))


def _branches(network: nn.Module) -> list[tuple[nn.Module, list[str]]]:
    """The residual blocks in their order, and the names under which each keeps what may drop its branches: timm's and
    torchstone's are called ``drop_path``, torchvision's ``stochastic_depth``."""
    found = []
    for block in network.modules():
        slots = [
            name
            for name, value in {**vars(block), **dict(block.named_children())}.items()
            if name.startswith(("drop_path", "stochastic_depth")) and (value is None or isinstance(value, nn.Module))
        ]
        if slots:
            found.append((block, slots))
    return found
