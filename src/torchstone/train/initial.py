"""The values that fresh layers begin with."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import nn


@torch.no_grad()
def initialise(network: nn.Module, how: Literal["default", "kaiming", "xavier"], fresh: Iterable[str] | None) -> None:
    """Draw the weights of convolutions and linear layers anew, from torch's global generator; their biases become 0.

    ``kaiming``: normal, of standard deviation √(2 / inputs) (He et al. 2015, formula 10), which keeps the signal's
    variance through ReLUs. ``xavier``: uniform within √(6 / (inputs + outputs)) (Glorot & Bengio 2010, formula 16).
    Inputs and outputs are those that meet in one unit: of a depthwise 3×3 convolution 9 each. ``default``: nothing is
    changed. ``fresh`` are the names of the tensors that are to begin anew (None: all).
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
        if module.bias is not None and (chosen is None or f"{place}bias" in chosen):
            module.bias.zero_()


def _draw(module: nn.Conv2d | nn.Linear, how: str) -> None:
    weight = module.weight
    inputs = weight[0].numel()
    groups = module.groups if isinstance(module, nn.Conv2d) else 1
    outputs = weight.shape[0] // groups * (weight[0, 0].numel() if weight.ndim > 2 else 1)
    if how == "kaiming":
        weight.normal_(0.0, math.sqrt(2 / inputs))
    else:
        bound = math.sqrt(6 / (inputs + outputs))
        weight.uniform_(-bound, bound)
