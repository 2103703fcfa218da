"""MixUp and CutMix: each image of a batch is mixed with another one, and so are their labels. What is drawn depends on
(seed, step) alone."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.nn import functional

from torchstone.core import seeding


def mixed(
    x: torch.Tensor, targets: torch.Tensor, *, mixup: float, cutmix: float, seed: int, step: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """float[n, c, h, w] and targets float[n, classes], mixed; one of the two methods a batch, at random where both
    are on.

    ``mixup`` and ``cutmix`` are the α of the Beta(α, α) from which a batch's share of the first image is drawn; 0 turns
    one off. MixUp (Zhang et al. 2018) adds the images; CutMix (Yun et al. 2019) pastes a rectangle, and its share is
    that of the pixels left.
    """
    draws = seeding.generator(seed, "mix", step)
    if not mixup and not cutmix:
        return x, targets
    paste = bool(cutmix) and (not mixup or draws.random() < 0.5)
    alpha = cutmix if paste else mixup
    share = float(draws.beta(alpha, alpha))
    other = torch.from_numpy(draws.permutation(len(x))).to(x.device)
    if paste:
        x, share = _pasted(x, other, share, draws)
    else:
        x = x * share + x[other] * (1 - share)
    return x, targets * share + targets[other] * (1 - share)


def one_hot(labels: torch.Tensor, classes: int) -> torch.Tensor:
    """int64[n] → float32[n, classes]."""
    return functional.one_hot(labels, classes).to(torch.float32)


def _pasted(
    x: torch.Tensor, other: torch.Tensor, share: float, draws: np.random.Generator
) -> tuple[torch.Tensor, float]:
    """``x`` with one rectangle from ``other``, and the share of pixels that stayed. The rectangle's centre is anywhere:
    what reaches out of the image is cut off, as in the paper's code."""
    height, width = x.shape[2:]
    side = math.sqrt(1 - share)
    tall, wide = int(height * side), int(width * side)
    y, x0 = int(draws.integers(height)), int(draws.integers(width))
    top, bottom = max(0, y - tall // 2), min(height, y - tall // 2 + tall)
    left, right = max(0, x0 - wide // 2), min(width, x0 - wide // 2 + wide)
    out = x.clone()
    out[:, :, top:bottom, left:right] = x[other, :, top:bottom, left:right]
    return out, 1 - (bottom - top) * (right - left) / (height * width)
