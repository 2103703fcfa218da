"""What a training makes small."""

from __future__ import annotations

from typing import assert_never

import torch
from torch import nn
from torch.nn import functional

from torchstone.train.recipe import Recipe

SMALLEST = 1e-7
"""Of 1 - p in the focal loss: float32 cannot tell smaller ones from zero, where the gradient would be no number."""


def per_image(
    logits: torch.Tensor, targets: torch.Tensor, recipe: Recipe, weights: torch.Tensor | None
) -> torch.Tensor:
    """float32[n]: the loss of each image, of which the mean is what is made small.

    ``logits`` are float[n, classes], ``targets`` int64[n], or float32[n, classes] as shares of classes; ``weights`` are
    float32[classes] (None: all alike). Weighted losses are averaged over the images, not over their weights.
    """
    logits = logits.float()
    if recipe.loss == "focal":
        return _focal(logits, targets, recipe, weights)
    if recipe.loss == "cross-entropy":
        return functional.cross_entropy(
            logits, targets, weight=weights, label_smoothing=recipe.label_smoothing, reduction="none"
        )
    assert_never(recipe.loss)


def l1(network: nn.Module) -> torch.Tensor:
    """Sum of the absolute weights that train, without norms and biases."""
    sums = [
        parameter.abs().sum() for parameter in network.parameters() if parameter.ndim > 1 and parameter.requires_grad
    ]
    return torch.stack(sums).sum() if sums else torch.zeros(())


def _focal(logits: torch.Tensor, targets: torch.Tensor, recipe: Recipe, weights: torch.Tensor | None) -> torch.Tensor:
    """Σ over classes of -t (1 - p)^γ log p (Lin et al. 2017, formula 4), for targets t that may be smoothed or mixed.
    γ = 0 is the cross-entropy."""
    classes = logits.shape[1]
    if targets.ndim == 1:
        targets = functional.one_hot(targets, classes).float()
    targets = targets * (1 - recipe.label_smoothing) + recipe.label_smoothing / classes
    log_p = functional.log_softmax(logits, dim=1)
    terms = -targets * (1 - log_p.exp()).clamp_min(SMALLEST) ** recipe.focal_gamma * log_p
    return (terms if weights is None else terms * weights).sum(1)
