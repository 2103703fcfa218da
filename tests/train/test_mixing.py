from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from torchstone.train import mixing

LABELS = torch.arange(8)
TARGETS = mixing.one_hot(LABELS, 8)
X = LABELS.float().view(8, 1, 1, 1).expand(8, 3, 20, 16).contiguous()
"""Image i is i everywhere, so that what it was mixed with can be read off."""


def mixed(step: int, mixup: float, cutmix: float, seed: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    return mixing.mixed(X, TARGETS, mixup=mixup, cutmix=cutmix, seed=seed, step=step)


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.4, 0.0), (0.0, 1.0), (0.4, 1.0)])
def test_labels_are_mixed_as_the_images_are(mixup: float, cutmix: float) -> None:
    """Of each image, the mean of its pixels is the mean of its labels, weighted by their shares."""
    for step in range(50):
        x, targets = mixed(step, mixup, cutmix)
        assert torch.allclose(targets.sum(1), torch.ones(8))
        assert torch.allclose(x.mean((1, 2, 3)), targets @ LABELS.float(), atol=1e-5)


def test_mixup_adds_and_cutmix_pastes_a_rectangle() -> None:
    values = {len(torch.unique(mixed(step, 0.4, 0.0)[0][row])) for step in range(20) for row in range(8)}
    assert values == {1}
    pasted = 0
    for step in range(20):
        x, _ = mixed(step, 0.0, 1.0)
        for row in range(8):
            other = x[row, 0] != row
            if other.any():
                pasted += 1
                lines, columns = other.any(1), other.any(0)
                assert torch.equal(other, lines[:, None] & columns[None, :])
                assert len(torch.unique(x[row])) <= 2
    assert pasted > 50


def test_with_both_a_batch_gets_one_of_them() -> None:
    kinds = [max(len(torch.unique(image)) for image in mixed(step, 1.0, 1.0)[0]) for step in range(60)]
    assert 15 < sum(kind == 2 for kind in kinds) < 45


def test_it_depends_on_seed_and_step_alone() -> None:
    torch.manual_seed(0)
    first = mixed(5, 0.4, 1.0)
    torch.manual_seed(1)
    assert all(torch.equal(one, other) for one, other in zip(first, mixed(5, 0.4, 1.0), strict=True))
    assert not torch.equal(first[1], mixed(6, 0.4, 1.0)[1])
    assert not torch.equal(first[1], mixed(5, 0.4, 1.0, seed=4)[1])


def test_shares_follow_the_beta_distribution() -> None:
    """Beta(0.4, 0.4) has mean 1/2 and variance 1/7.2; a row that was mixed with itself says nothing."""
    targets = [mixed(step, 0.4, 0.0)[1] for step in range(1500)]
    kept = torch.stack([found.diagonal()[found.diagonal() < 1][0] for found in targets if (found.diagonal() < 1).any()])
    assert kept.mean().item() == pytest.approx(0.5, abs=0.04)
    assert kept.var().item() == pytest.approx(1 / 7.2, rel=0.1)


def test_off_means_untouched() -> None:
    x, targets = mixed(0, 0.0, 0.0)
    assert x is X
    assert targets is TARGETS


def test_soft_targets_without_mixing_are_the_labels() -> None:
    """With class weights the loss is that of the labels, weighted by class and divided by the images."""
    torch.manual_seed(0)
    logits, weights = torch.randn(8, 8), torch.rand(8) + 0.5
    each = functional.cross_entropy(logits, LABELS, reduction="none")
    found = functional.cross_entropy(logits, TARGETS, weight=weights)
    assert found.item() == pytest.approx((each * weights[LABELS]).mean().item(), rel=1e-6)
