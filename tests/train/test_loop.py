from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from torchstone.core.contracts import ImageSet
from torchstone.core.errors import ArtifactError, DataError, TrainingError
from torchstone.core.values import Artifact
from torchstone.data.preprocess import default_preprocess
from torchstone.models import zoo
from torchstone.models.deployable import Deployable
from torchstone.stages.read import Data
from torchstone.train import loop, optim
from torchstone.train.recipe import Recipe

PREPROCESS = default_preprocess(32)


class Dying:
    """Images that stop the process in the middle of an epoch."""

    def __init__(self, images: ImageSet, after: int) -> None:
        self.inner, self.left = images, after

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __len__(self) -> int:
        return len(self.inner)

    def stored(self, rows: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return self.inner.stored(rows)


def network(dropout: float = 0.2) -> Deployable:
    torch.manual_seed(3)
    layers = zoo.build("lenet5", classes=10)
    return Deployable(nn.Sequential(layers, nn.Dropout(dropout)), PREPROCESS)


@pytest.fixture(scope="module")
def parts(data: Data, trained: Artifact) -> dict[str, ImageSet]:
    return {str(part): images for part, images in data.sets(trained, "train", "val").items()}


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
@pytest.mark.parametrize("dies_after", [1, 20, 31])
def test_a_killed_training_goes_on_bit_for_bit(
    parts: dict[str, ImageSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimiser: str, dies_after: int
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    recipe = Recipe(epochs=3, optimiser=optimiser, lr=0.01, precision="f32", augment="standard")  # pyright: ignore
    whole = network()
    loop.fit(whole, parts["train"], parts["val"], recipe, 7, tmp_path / "whole")

    broken = network()
    with pytest.raises(KeyboardInterrupt):
        loop.fit(broken, Dying(parts["train"], dies_after), parts["val"], recipe, 7, tmp_path / "broken")  # pyright: ignore
    again = network()
    with torch.no_grad():  # what is in memory must not matter
        for parameter in again.parameters():
            parameter.zero_()
    progress = loop.fit(again, parts["train"], parts["val"], recipe, 7, tmp_path / "broken")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert len(progress.history) == 3


def test_the_best_epoch_on_val_is_kept(parts: dict[str, ImageSet], tmp_path: Path) -> None:
    model = network(0.0)
    progress = loop.fit(model, parts["train"], parts["val"], Recipe(epochs=4, precision="f32"), 1, tmp_path)
    best = max(row["val_top1"] for row in progress.history)
    assert loop.evaluate(model, parts["val"], "f32")[1] == pytest.approx(best)


def test_it_stops_when_val_does_not_get_better(parts: dict[str, ImageSet], tmp_path: Path) -> None:
    recipe = Recipe(epochs=50, patience=2, lr=1e-9, precision="f32", augment="none")
    progress = loop.fit(network(0.0), parts["train"], parts["val"], recipe, 1, tmp_path)
    assert progress.epoch < 50


def test_divergence_is_said_with_a_lower_rate(parts: dict[str, ImageSet], tmp_path: Path) -> None:
    recipe = Recipe(epochs=3, optimiser="sgd", lr=1e12, clip=1e12, warmup=0, precision="f32")
    with pytest.raises(TrainingError, match="lower the learning rate"):
        loop.fit(network(0.0), parts["train"], parts["val"], recipe, 1, tmp_path)


def test_too_few_images_for_a_batch(parts: dict[str, ImageSet], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="do not fill one batch"):
        loop.fit(network(), parts["train"], parts["val"], Recipe(batch=10_000), 1, tmp_path)


def test_a_damaged_checkpoint_is_named(parts: dict[str, ImageSet], tmp_path: Path) -> None:
    (tmp_path / loop.LAST).write_bytes(b"\x00" * 100)
    with pytest.raises(ArtifactError, match="checkpoint"):
        loop.fit(network(), parts["train"], parts["val"], Recipe(epochs=1), 1, tmp_path)


def test_norms_and_biases_do_not_decay() -> None:
    groups = optim.optimiser(zoo.build("resnet20", classes=10), Recipe(weight_decay=0.1)).param_groups
    assert {group["weight_decay"]: {p.ndim for p in group["params"]} for group in groups} == {0.1: {2, 4}, 0.0: {1}}


def test_the_rate_rises_then_falls_to_almost_nothing() -> None:
    rates = [optim.rate(Recipe(lr=1.0, warmup=0.2), step, 100) for step in range(100)]
    assert int(np.argmax(rates)) in (19, 20)
    assert max(rates) == pytest.approx(1.0)
    assert rates[0] == pytest.approx(0.05)
    assert rates[-1] < 0.01
