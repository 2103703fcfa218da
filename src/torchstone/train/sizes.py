"""Progressive resizing: a training begins with small images, which are cheap, and ends with full ones (Howard 2018;
Tan & Le 2021, section 4)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from torchstone.core.errors import ConfigError
from torchstone.train.modes import judging
from torchstone.train.recipe import Recipe

SMALLEST_STEP = 4


def side(recipe: Recipe, epoch: int, crop: int) -> int:
    """Pixels a side in ``epoch`` (from 0): from ``first_size`` of ``crop`` evenly up to all of it at ``full_size`` of
    the epochs, in steps of about an eighth (a power of two: 16 pixels at 224, 4 at 32)."""
    until = recipe.full_size * recipe.epochs
    if epoch >= until:
        return crop
    share = recipe.first_size + (1 - recipe.first_size) * epoch / until
    step = max(SMALLEST_STEP, 1 << max(0, (crop // 8).bit_length() - 1))
    return crop if share == 1 else min(crop, max(step, round(crop * share / step) * step))


def resized(x: torch.Tensor, side: int) -> torch.Tensor:
    """uint8 or float[n, c, h, w] → the same kind, ``side`` pixels square: bilinear, antialiased."""
    if x.shape[-2:] == (side, side):
        return x
    exact = x if x.is_floating_point() else x.float()
    out = functional.interpolate(exact, size=(side, side), mode="bilinear", antialias=True)
    return out if x.is_floating_point() else out.round_().clamp_(0, 255).to(x.dtype)


def check(network: nn.Module, recipe: Recipe, crop: int, channels: int) -> None:
    """Raise a ConfigError where the network cannot take the smallest images of this recipe."""
    smallest = side(recipe, 0, crop)
    if smallest == crop:
        return
    where = next(network.parameters()).device
    try:
        with judging(network), torch.no_grad():
            network(torch.zeros(1, channels, smallest, smallest, device=where))
    except (RuntimeError, ValueError, AssertionError):
        raise ConfigError(
            f"this network takes no images of {smallest} pixels, with which first_size = {recipe.first_size:g} begins",
            hint="a larger first_size, or 1; networks that flatten their last map take one size alone",
        ) from None
