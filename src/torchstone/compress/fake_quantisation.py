"""Training under the rounding of INT8: weights and the inputs of layers are rounded as an INT8 runtime will round them,
and gradients pass as if they were not (Jacob et al. 2018).

Batch norms stay what they are. A weight's scale is that of its output channel, which is what a batch norm multiplies,
so that rounding before the norm is folded into it is rounding after.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

WEIGHT_LEVELS = 127
"""Of a weight to each side of zero: symmetric, as both runtimes' kernels want it."""
INPUT_LEVELS = 255
"""Of an activation, which is unsigned."""
MOMENTUM = 0.05
"""Of a batch in the running range of an input."""
SMALLEST = 1e-8
"""Of a scale, where all values are zero."""


class RoundedWeight(nn.Module):
    """As a parametrisation: float32[out, …] rounded per output channel."""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        scale = weight.detach().abs().flatten(1).amax(1).clamp_min(SMALLEST) / WEIGHT_LEVELS
        zero = torch.zeros_like(scale, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -WEIGHT_LEVELS, WEIGHT_LEVELS)


class RoundedInput(nn.Module):
    """Rounds to 256 levels of a range that is followed while the network trains, and always holds zero."""

    low: torch.Tensor
    high: torch.Tensor
    met: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))
        self.register_buffer("met", torch.zeros((), dtype=torch.bool))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self._follow(x.detach())
        scale = ((self.high - self.low) / INPUT_LEVELS).clamp_min(SMALLEST)
        zero = (-self.low / scale).round().clamp(0, INPUT_LEVELS).to(torch.int32)
        return torch.fake_quantize_per_tensor_affine(x, scale, zero, 0, INPUT_LEVELS)

    def _follow(self, x: torch.Tensor) -> None:
        low, high = x.min().clamp_max(0), x.max().clamp_min(0)
        share = torch.where(self.met, MOMENTUM, 1.0)
        self.low.lerp_(low, share)
        self.high.lerp_(high, share)
        self.met.fill_(True)


@contextmanager
def rounded(network: nn.Module) -> Iterator[None]:
    """Inside, the convolutions and linear layers of ``network`` compute on rounded values; afterwards it has the
    weights that were trained, not rounded, and nothing else."""
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    hooks = []
    for layer in layers:
        parametrize.register_parametrization(layer, "weight", RoundedWeight())
        layer.add_module("input_range", RoundedInput())
        hooks.append(layer.register_forward_pre_hook(_round_input))
    try:
        yield
    finally:
        for layer, hook in zip(layers, hooks, strict=True):
            hook.remove()
            del layer.input_range
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)


def _round_input(layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return (layer.get_submodule("input_range")(inputs[0]), *inputs[1:])
