"""Optimisers: which parameters decay, and how fast each layer learns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from torchstone.train.recipe import Recipe

BETA = 0.9
"""AdamW's and RAdam's decay of the gradient's average: what momentum is to SGD."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """An optimiser, and what the rest of a training has to know of it."""

    make: Callable[[list[dict[str, Any]], Recipe], torch.optim.Optimizer]
    entries: int
    """Tensors of a parameter's size that its state holds."""
    highest: float
    """Rate at the end of a range test: the length of AdamW's steps does not shrink with the gradient."""
    momentum: Callable[[Recipe], float]
    """Around which one-cycle lets it fall and rise; 0: there is none."""


def _sgd(groups: list[dict[str, Any]], recipe: Recipe) -> torch.optim.Optimizer:
    thaws = bool(recipe.freeze) and recipe.unfreeze < 1  # the fused one wants all momenta to begin together
    return torch.optim.SGD(
        groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0, fused=not thaws
    )


def _adamw(groups: list[dict[str, Any]], recipe: Recipe) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=(BETA, 0.999), fused=True)


def _radam(groups: list[dict[str, Any]], recipe: Recipe) -> torch.optim.Optimizer:
    return torch.optim.RAdam(groups, lr=recipe.lr, betas=(BETA, 0.999), decoupled_weight_decay=True)


KINDS: dict[str, Kind] = {
    "sgd": Kind(make=_sgd, entries=1, highest=10.0, momentum=lambda recipe: recipe.momentum),
    "adamw": Kind(make=_adamw, entries=2, highest=1.0, momentum=lambda _: BETA),
    "radam": Kind(make=_radam, entries=2, highest=1.0, momentum=lambda _: BETA),
}
"""By the names that a recipe has for them."""


def optimiser(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """SGD (Nesterov), AdamW or RAdam (Liu et al. 2020) over all parameters, frozen ones included: an optimiser passes
    over what has no gradient, so that a layer can thaw later.

    Norms, biases and what the network itself names (``no_weight_decay``) do not decay. Every group carries ``scale``,
    its factor on the rate: ``layer_decay`` to the power of the layers between it and the head, and ``bias_rate`` for
    what does not decay.
    """
    groups = [group for group in _groups(network, recipe) if group["params"]]
    return KINDS[recipe.optimiser].make(groups, recipe)


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Let every group learn at ``rate`` times its scale."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["scale"]


def set_momentum(optimiser: torch.optim.Optimizer, momentum: float) -> None:
    """Set SGD's momentum, or the first beta of the others."""
    for group in optimiser.param_groups:
        if "momentum" in group:
            group["momentum"] = momentum
        else:
            group["betas"] = (momentum, *group["betas"][1:])


def layers_of(network: nn.Module) -> dict[str, int]:
    """The layer of each parameter, by name, counted from the input: a block of a residual network is one layer.

    timm's networks say it themselves. In the others a layer is a module that is no container, together with the
    norms that follow it.
    """
    matcher: Any = getattr(network, "group_matcher", None)
    if matcher is not None:
        from timm.models import group_parameters

        found: Any = group_parameters(network, matcher(coarse=False), reverse=True)
        return {name: int(found[name]) for name, _ in network.named_parameters()}
    layers: dict[str, int] = {}
    number = -1
    for unit, parameters in _units(network, ""):
        if number < 0 or any(parameter.ndim > 1 for parameter in parameters.values()):
            number += 1
        layers |= {f"{unit}{name}": number for name in parameters}
    return layers


def _groups(network: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """For each layer (all are one without ``layer_decay``) what decays and what does not."""
    spared: Any = getattr(network, "no_weight_decay", None)
    lasting: set[str] = set(spared()) if spared is not None else set()
    layers = layers_of(network) if recipe.layer_decay < 1 else {}
    last = max(layers.values(), default=0)
    groups: list[dict[str, Any]] = [
        {"params": [], "weight_decay": decay, "scale": factor * recipe.layer_decay ** (last - layer)}
        for layer in range(last + 1)
        for decay, factor in ((recipe.weight_decay, 1.0), (0.0, recipe.bias_rate))
    ]
    for name, parameter in network.named_parameters():
        decays = parameter.ndim > 1 and name not in lasting
        groups[2 * layers.get(name, last) + (not decays)]["params"].append(parameter)
    return groups


def _units(module: nn.Module, prefix: str) -> list[tuple[str, dict[str, nn.Parameter]]]:
    """The modules below ``module`` in their order, plain containers opened, each with all of its parameters by name."""
    found = []
    own = dict(module.named_parameters(recurse=False))
    if own:
        found.append((prefix, own))
    for name, child in module.named_children():
        place = f"{prefix}{name}."
        if type(child) in (nn.Sequential, nn.ModuleList):
            found += _units(child, place)
        elif parameters := dict(child.named_parameters()):
            found.append((place, parameters))
    return found
