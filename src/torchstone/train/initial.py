"""The values that fresh layers begin with."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import nn

from torchstone.core import seeding
from torchstone.core.contracts import ImageSet
from torchstone.core.errors import ConfigError
from torchstone.models.deployable import Deployable
from torchstone.train.recipe import Initial

WHITENED_BY = 2_000
"""Images of which the first filters are made: millions of patches for a handful of directions."""
FLOOR = 5e-4
"""Added to each variance before it is divided by: a direction that hardly varies is noise."""


@torch.no_grad()
def initialise(network: nn.Module, how: Initial, fresh: Iterable[str] | None) -> None:
    """Draw the weights of convolutions and linear layers anew, from torch's global generator; their biases become 0.

    ``kaiming``: normal, of standard deviation √(2 / inputs) (He et al. 2015, formula 10), which keeps the signal's
    variance through ReLUs. ``xavier``: uniform within √(6 / (inputs + outputs)) (Glorot & Bengio 2010, formula 16).
    Inputs and outputs are those that meet in one unit: of a depthwise 3×3 convolution 9 each. ``dirac``: the first
    filters of a convolution of more than one pixel pass a channel on each (Zagoruyko & Komodakis 2017); all else stays
    as it is. ``default``: nothing is changed. ``fresh`` are the names of the tensors that begin anew (None: all).
    """
    if how == "default":
        return
    chosen = None if fresh is None else set(fresh)
    for name, module in network.named_modules():
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        place = f"{name}." if name else ""
        if chosen is None or f"{place}weight" in chosen:
            _draw(module, how)
        if how != "dirac" and module.bias is not None and (chosen is None or f"{place}bias" in chosen):
            module.bias.zero_()


@torch.no_grad()
def whiten(model: Deployable, train: ImageSet) -> None:
    """Make the filters of the first convolution those that whiten its patches: the principal directions of the
    normalised training images, each divided by its standard deviation, and their opposites (Jordan 2024, section 3.2).
    Filters that are left over stay as they are; the bias becomes 0. Raises a ConfigError where the network has no such
    convolution."""
    first = next((module for module in model.network.modules() if isinstance(module, nn.Conv2d)), None)
    if first is None or first.groups > 1 or first.out_channels < 2:
        raise ConfigError(
            "whiten: this network does not begin with a convolution of its own filters", hint="leave it out"
        )
    rows = seeding.sample_rows(train.labels, WHITENED_BY, "whiten")
    x = model.normalise(torch.from_numpy(np.ascontiguousarray(train.images(rows))))
    high, wide = first.kernel_size
    patches = x.unfold(2, high, 1).unfold(3, wide, 1).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(0, 2).double()
    values, directions = torch.linalg.eigh(patches.T @ patches / len(patches))
    filters = (directions / (values + FLOOR).sqrt()).T.flip(0)[: first.out_channels // 2]
    filters = filters.reshape(-1, *first.weight.shape[1:]).to(first.weight.dtype)
    first.weight[: 2 * len(filters)] = torch.cat([filters, -filters])
    if first.bias is not None:
        first.bias.zero_()


def _draw(module: nn.Conv2d | nn.Linear, how: str) -> None:
    weight = module.weight
    if how == "dirac":
        if isinstance(module, nn.Conv2d) and module.groups == 1 and max(module.kernel_size) > 1:
            nn.init.dirac_(weight[: weight.shape[1]])
        return
    inputs = weight[0].numel()
    groups = module.groups if isinstance(module, nn.Conv2d) else 1
    outputs = weight.shape[0] // groups * (weight[0, 0].numel() if weight.ndim > 2 else 1)
    if how == "kaiming":
        weight.normal_(0.0, math.sqrt(2 / inputs))
    else:
        bound = math.sqrt(6 / (inputs + outputs))
        weight.uniform_(-bound, bound)
