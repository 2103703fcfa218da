"""What pruning takes, by which measure, and how much."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from built import made
from torch import nn

from torchstone.compress import chain, pruning
from torchstone.compress.pruning_options import Pruning
from torchstone.core.errors import ChainError
from torchstone.core.values import Candidate
from torchstone.data.preprocess import default_preprocess
from torchstone.models import cost, store, zoo
from torchstone.models.deployable import Deployable
from torchstone.stages.read import Data

CROP = 32


class Noise:
    """Training images, as far as pruning looks at them."""

    labels = np.arange(64) % 10

    def images(self, rows: np.ndarray) -> np.ndarray:
        draw = np.random.default_rng(0)
        return draw.integers(0, 256, (64, CROP, CROP, 3), dtype=np.uint8)[rows]


def resnet20() -> Deployable:
    """With random weights, and batch norms that are not all alike."""
    torch.manual_seed(0)
    model = Deployable(zoo.build("resnet20", classes=10), default_preprocess(CROP)).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.1, 1.0)
    return model


def widths(model: Deployable) -> list[int]:
    return [len(module.weight) for module in model.network.modules() if isinstance(module, nn.Conv2d)]


@pytest.mark.parametrize("importance", ["magnitude", "taylor", "bn_scale"])
@pytest.mark.parametrize("scope", ["uniform", "global"])
def test_channels_leave_by_every_measure(importance: str, scope: str) -> None:
    model = resnet20()
    how = Pruning.model_validate({"importance": importance, "scope": scope, "round_to": 4})
    done = pruning.by_ratio(model, 0.5, how, Noise(), CROP)  # pyright: ignore[reportArgumentType]
    assert all(width % 4 == 0 for width in widths(done))
    shares = {round(new / old, 2) for new, old in zip(widths(done), widths(model), strict=True)}
    assert shares == {0.5} if scope == "uniform" else len(shares) > 1
    assert all(parameter.grad is None for parameter in done.parameters())
    assert widths(model) == widths(resnet20())


def test_a_layer_whose_channels_are_the_weakest_of_all_keeps_a_tenth_of_them() -> None:
    model = resnet20()
    norms = [module for module in model.network.modules() if isinstance(module, nn.BatchNorm2d)]
    nn.init.uniform_(norms[-2].weight[2:], 0.0001, 0.0002)  # between the two convolutions of the last block
    how = Pruning.model_validate({"importance": "bn_scale", "scope": "global", "round_to": 1})
    done = pruning.by_ratio(model, 0.3, how, Noise(), CROP)  # pyright: ignore[reportArgumentType]
    assert widths(model)[-2] == 64
    assert widths(done)[-2] in (6, 7)


def test_measures_disagree() -> None:
    """Else one of them is not what it says."""
    kept = {}
    for importance in ("magnitude", "taylor", "bn_scale"):
        how = Pruning.model_validate({"importance": importance, "round_to": 4})
        done = pruning.by_ratio(resnet20(), 0.5, how, Noise(), CROP)  # pyright: ignore[reportArgumentType]
        norms = [module.weight.detach() for module in done.network.modules() if isinstance(module, nn.BatchNorm2d)]
        kept[importance] = tuple(np.round(torch.cat(norms).numpy(), 5))
    assert len(set(kept.values())) == 3


def test_the_weakest_batch_norms_leave() -> None:
    model = resnet20()
    norms = [module for module in model.network.modules() if isinstance(module, nn.BatchNorm2d)]
    inner = norms[1]  # between the two convolutions of the first block: no other layer has a say in its channels
    expected = inner.weight.detach().sort().values[8:]
    how = Pruning.model_validate({"importance": "bn_scale", "round_to": 1})
    done = pruning.by_ratio(model, 0.5, how, Noise(), CROP)  # pyright: ignore[reportArgumentType]
    left = [module for module in done.network.modules() if isinstance(module, nn.BatchNorm2d)][1]
    torch.testing.assert_close(left.weight.detach().sort().values, expected)


@pytest.mark.parametrize("share", [0.7, 0.4])
def test_a_share_of_macs_is_met_and_hardly_missed(share: float) -> None:
    model = resnet20()
    target = int(share * cost.macs_of(model, CROP))
    done = pruning.to_macs(model, target, Pruning(round_to=1), Noise(), CROP)  # pyright: ignore[reportArgumentType]
    assert 0.85 * target < cost.macs_of(done, CROP) <= target


def test_macs_out_of_reach_are_refused() -> None:
    with pytest.raises(ChainError, match="out of reach"):
        pruning.to_macs(resnet20(), 1000, Pruning(), Noise(), CROP)  # pyright: ignore[reportArgumentType]


def test_two_targets_are_refused() -> None:
    with pytest.raises(ChainError, match="a ratio and a share"):
        chain.plan("prune=0.3:macs=0.5", check_packages=False)


def test_networks_without_batch_norms_cannot_be_ranked_by_them(baseline: Candidate, data: Data) -> None:
    with pytest.raises(ChainError, match="has none"):
        made("prune:importance=bn_scale", baseline, data)


def test_what_was_taken_is_said(baseline: Candidate, data: Data) -> None:
    done = made("prune:macs=0.5", baseline, data).artifact
    before, after = store.load(baseline.artifact), store.load(done)
    assert cost.macs_of(after, CROP) <= 0.5 * cost.macs_of(before, CROP)
    assert done.notes == (f"prune: {pruning.described(before, after, CROP)}",)
    assert "of the MACs (" in done.notes[0]
