"""Layers that keep the weights they came with, for a while or for good."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from torchstone.core.errors import ConfigError, nearest
from torchstone.models import zoo
from torchstone.train.recipe import Recipe

BACKBONE = "backbone"


def freeze(network: nn.Module, recipe: Recipe, epoch: int) -> bool:
    """Let in ``epoch`` (from 0) no parameter train that ``recipe.freeze`` matches, until ``recipe.unfreeze`` of the
    epochs are over. Returns whether that changed anything.

    A pattern matches a parameter's name or that of a module around it: ``layer1``, ``layer1.*`` and ``*.bn1`` do;
    ``backbone`` is everything but the head. Raises a ConfigError for a pattern that matches nothing, and where nothing
    is left to train.
    """
    frozen = frozen_names(network, recipe.freeze)
    if recipe.unfreeze < 1 and epoch >= recipe.unfreeze * recipe.epochs:
        frozen = frozenset()
    changed = False
    for name, parameter in network.named_parameters():
        changed |= parameter.requires_grad == (name in frozen)
        parameter.requires_grad_(name not in frozen)
    return changed


def train_mode(network: nn.Module, recipe: Recipe) -> None:
    """``network.train()``, but for batch norms whose parameters are frozen (all of them with ``freeze_norms``): they go
    on normalising by the statistics that they have."""
    network.train()
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            own = list(module.parameters())
            if recipe.freeze_norms or (own and not any(parameter.requires_grad for parameter in own)):
                module.eval()


def frozen_names(network: nn.Module, patterns: Iterable[str]) -> frozenset[str]:
    """The parameters that ``patterns`` match, by name."""
    names = [name for name, _ in network.named_parameters()]
    found: set[str] = set()
    for pattern in patterns:
        if pattern == BACKBONE:
            head, _ = zoo.head(network)
            matched = [name for name in names if not name.startswith(f"{head}.")]
        else:
            matched = [name for name in names if any(fnmatchcase(place, pattern) for place in _places(name))]
        if not matched:
            raise ConfigError(f"freeze = '{pattern}' matches no layer of this network", hint=_near(pattern, names))
        found.update(matched)
    if len(found) == len(names):
        raise ConfigError("freeze leaves no layer to be trained", hint="leave the last layers out: freeze=backbone")
    return frozenset(found)


def _places(name: str) -> list[str]:
    """``a.b.weight`` → ``a``, ``a.b``, ``a.b.weight``."""
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]


def _near(pattern: str, names: list[str]) -> str:
    """A hint with the layers that were probably meant, or the outermost ones."""
    modules = list(dict.fromkeys(place for name in names for place in _places(name)[:-1]))
    close = difflib.get_close_matches(pattern.rstrip("*."), modules, n=3, cutoff=0.6)
    if close:
        return f"near it: {', '.join(close)}"
    return nearest(pattern, [BACKBONE, *(module for module in modules if "." not in module)])
