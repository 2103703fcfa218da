"""The learning-rate range test: what it proposes, what it leaves alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from torchstone.core.contracts import ImageSet
from torchstone.core.errors import DataError, TrainingError
from torchstone.core.values import Artifact
from torchstone.data.preprocess import default_preprocess
from torchstone.models import zoo
from torchstone.models.deployable import Deployable
from torchstone.stages.read import Data
from torchstone.train import loop, range_test
from torchstone.train.initial import initialise
from torchstone.train.recipe import Recipe

RATES = np.geomspace(1e-6, 1, 100)
DECADE = np.log10(RATES)


def falling(middle: float, broken: float, noise: float = 0.0) -> Any:
    """Losses that fall from 2.3 to 1.3 around the rate 10^``middle`` and break above 10^``broken``."""
    fall = 1 / (1 + np.exp(-8 * (DECADE - middle)))
    rise = np.exp(np.clip(6 * (DECADE - broken), -50, 8)) * 0.1
    return 2.3 - fall + rise + noise * np.random.default_rng(0).standard_normal(100)


@pytest.fixture(scope="module")
def digits(data: Data, trained: Artifact) -> ImageSet:
    return data.sets(trained, "train")["train"]


def lenet(architecture: str = "lenet5", *, init: Any = "default") -> Deployable:
    torch.manual_seed(3)
    network = zoo.build(architecture, classes=10)
    initialise(network, init, None)
    return Deployable(network, default_preprocess(32))


@pytest.mark.parametrize("noise", [0.0, 0.05])
@pytest.mark.parametrize(("middle", "broken"), [(-3, -0.5), (-4, -1), (-2, -1.5)])
def test_the_proposal_lies_where_the_loss_has_fallen_and_below_where_it_breaks(
    middle: float, broken: float, noise: float
) -> None:
    found = range_test.read(RATES, falling(middle, broken, noise), diverged=False)
    assert found.proposed is not None
    assert 10 ** (middle - 0.5) < found.proposed < 10**broken / 3
    assert found.proposed == float(f"{found.proposed:.0e}"), "one digit"


def test_it_takes_its_time_where_a_network_does(digits: ImageSet) -> None:
    recipe = Recipe(batch=32, precision="f32", workers=0)
    short, long = (range_test.find(lenet(), digits, recipe, 1, steps=steps) for steps in ((20,), (20, 60)))
    assert short.proposed is None
    assert "over 20 steps" in short.reason
    assert long.proposed is not None
    assert len(long.losses) > 20


@pytest.mark.parametrize("losses", [np.full(100, 2.3), np.linspace(2.3, 3, 100)], ids=["flat", "rising"])
def test_a_curve_that_says_nothing_proposes_nothing(losses: Any) -> None:
    found = range_test.read(RATES, losses, diverged=False)
    assert found.proposed is None
    assert "does not say" in found.reason


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_the_proposed_rate_trains_and_a_hundredth_of_it_does_not(
    optimiser: Any, digits: ImageSet, tmp_path: Path
) -> None:
    recipe = Recipe(optimiser=optimiser, batch=32, epochs=3, precision="f32", workers=0)
    init = "kaiming" if optimiser == "sgd" else "default"  # by default SGD needs longer to begin than three epochs
    found = range_test.find(lenet(init=init), digits, recipe, 1)
    assert found.proposed is not None, found.reason
    losses = {}
    for share in (1.0, 0.01):
        again = recipe.model_copy(update={"lr": share * found.proposed})
        progress = loop.fit(lenet(init=init), digits, digits, again, 1, tmp_path / f"{share}")
        losses[share] = progress.history[-1]["val_loss"]
    assert losses[1.0] < 1.0 < losses[0.01], found.reason


def test_it_leaves_no_trace(digits: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = lenet("resnet20")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    recipe = Recipe(batch=8, drop_path=0.2, dropout=0.2, mixup=0.2, ema=0.9, precision="f32", workers=0)
    found = range_test.find(model, digits, recipe, 1, steps=(24,))
    assert torch.equal(torch.rand(3), expected), "the global generator"
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not zoo.head(model.network)[1]._forward_pre_hooks
    assert not list(tmp_path.iterdir())
    again = range_test.find(model, digits, recipe, 1, steps=(24,))
    assert again == found, "and is the same each time"


def test_it_stops_where_the_loss_has_broken(digits: ImageSet) -> None:
    recipe = Recipe(optimiser="sgd", batch=16, clip=0, warmup=0, precision="f32", workers=0)
    found = range_test.find(lenet(), digits, recipe, 1, steps=(60,))
    assert found.diverged
    assert len(found.losses) < 60
    assert found.rates[-1] < 10


def test_images_that_break_at_every_rate_are_no_matter_of_the_rate(digits: ImageSet) -> None:
    model = lenet()
    with torch.no_grad():
        next(model.network.parameters()).fill_(float("nan"))
    with pytest.raises(TrainingError):
        range_test.find(model, digits, Recipe(batch=32, precision="f32", workers=0), 1)


def test_too_few_images_are_refused(digits: ImageSet) -> None:
    with pytest.raises(DataError, match="do not fill one batch"):
        range_test.find(lenet(), digits, Recipe(batch=10_000), 1)
