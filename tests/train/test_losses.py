"""Losses, against torch's and the focal loss's formula."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from torchstone.train import losses, mixing
from torchstone.train.recipe import Recipe

torch.manual_seed(0)
LOGITS, LABELS = 3 * torch.randn(32, 5), torch.randint(5, (32,))
WEIGHTS = torch.tensor([0.5, 2.0, 1.0, 1.0, 3.0])
SHARES = torch.softmax(torch.randn(32, 5), 1)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("targets", [LABELS, SHARES], ids=["labels", "shares"])
@pytest.mark.parametrize("loss", [{}, {"loss": "focal", "focal_gamma": 0.0}], ids=["cross-entropy", "focal, gamma 0"])
def test_the_mean_is_torchs_cross_entropy(
    loss: dict[str, Any], targets: torch.Tensor, smoothing: float, weights: torch.Tensor | None
) -> None:
    found = losses.per_image(LOGITS, targets, Recipe(label_smoothing=smoothing, **loss), weights)
    assert found.shape == (32,)
    assert found.dtype == torch.float32
    shares = mixing.one_hot(targets, 5) if targets.ndim == 1 else targets
    expected = functional.cross_entropy(LOGITS, shares, weight=weights, label_smoothing=smoothing)
    assert torch.isclose(found.mean(), expected, rtol=1e-6)


def test_the_focal_loss_is_its_formula() -> None:
    found = losses.per_image(LOGITS, LABELS, Recipe(loss="focal", focal_gamma=2.0, label_smoothing=0.0), WEIGHTS)
    p = torch.softmax(LOGITS, 1)[torch.arange(32), LABELS]
    assert torch.allclose(found, -WEIGHTS[LABELS] * (1 - p) ** 2 * p.log(), rtol=1e-5, atol=1e-7)


def test_the_focal_loss_favours_what_is_hard() -> None:
    """The published example: at γ = 2 an image with p = 0.9 counts 100 times less than in the cross-entropy."""
    logits = torch.tensor([[0.9, 0.1], [0.5, 0.5]]).log()
    plain, focal = (
        losses.per_image(logits, torch.tensor([0, 0]), Recipe(loss=kind, label_smoothing=0.0), None)
        for kind in ("cross-entropy", "focal")
    )
    assert (plain / focal).tolist() == pytest.approx([100, 4], rel=1e-4)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_the_focal_loss_has_a_gradient_where_all_is_certain(gamma: float) -> None:
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    recipe = Recipe(loss="focal", focal_gamma=gamma, label_smoothing=0.0)
    losses.per_image(logits, torch.tensor([0, 0]), recipe, None).sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad[1].abs().sum() > 0.5, "the wrong one is corrected"


def test_l1_counts_the_weights_that_train() -> None:
    head = nn.Linear(2, 1)
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), head)
    for parameter in network.parameters():
        nn.init.constant_(parameter, -2.0)
    assert losses.l1(network).item() == 2 * 6
    network[0].requires_grad_(False)
    assert losses.l1(network).item() == 2 * 2
    losses.l1(network).backward()
    assert head.weight.grad is not None
    assert torch.equal(head.weight.grad, torch.full((1, 2), -1.0))
