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
from torchstone.data.augment import POLICIES
from torchstone.data.preprocess import default_preprocess
from torchstone.models import zoo
from torchstone.models.deployable import Deployable
from torchstone.stages.read import Data
from torchstone.train import loop, optim
from torchstone.train.recipe import Recipe

PREPROCESS = default_preprocess(32)


class First:
    """The first images of a set (contracts.ImageSet): enough for six steps an epoch."""

    def __init__(self, images: ImageSet, count: int = 208) -> None:
        self.inner, self.labels, self.items = images, images.labels[:count], images.items[:count]

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, rows: Any) -> Any:
        return self.inner.images(rows)

    def stored(self, rows: Any) -> Any:
        return self.inner.stored(rows)

    def encoded(self, row: int) -> bytes:
        return self.inner.encoded(row)


def dying(model: Deployable, after: int) -> Deployable:
    """The model, stopping the process in the middle of an epoch: at its training step number ``after``."""
    left = [after]

    def count(module: nn.Module, _: Any) -> None:
        left[0] -= module.training
        if left[0] < 0:
            raise KeyboardInterrupt

    model.network.register_forward_pre_hook(count)
    return model


def network(dropout: float = 0.2) -> Deployable:
    torch.manual_seed(3)
    layers = zoo.build("lenet5", classes=10)
    return Deployable(nn.Sequential(layers, nn.Dropout(dropout)), PREPROCESS)


@pytest.fixture(scope="module")
def parts(data: Data, trained: Artifact) -> dict[str, ImageSet]:
    return {str(part): images for part, images in data.sets(trained, "train", "val").items()}


MIXED = {"mixup": 0.4, "cutmix": 1.0, "sampler": "balanced", "class_weights": 0.99}
KILLED: dict[str, tuple[dict[str, Any], float, int]] = {
    "SGD, at the start": ({"optimiser": "sgd", "lr": 0.02, "augment": "standard"}, 0.0, 0),
    "in the first epoch": ({"augment": "standard"}, 0.3, 0),
    "at the end of an epoch": ({"augment": "standard"}, 0.5, 0),
    "in the last epoch": ({"augment": "standard"}, 0.9, 0),
    **{f"policy {name}": ({"augment": name}, 0.7, 0) for name in POLICIES if name != "standard"},
    "MixUp": ({"mixup": 0.4}, 0.7, 0),
    "all at once": ({"augment": "strong", **MIXED}, 0.7, 0),
    "all at once, with workers": ({"augment": "strong", **MIXED}, 0.7, 2),
    "weights by class": ({"sampler": "3=2,7=0.5"}, 0.7, 1),
}
"""Options, the share of the training after which it dies, and the workers of the second attempt: the first has none."""


@pytest.mark.parametrize("case", KILLED)
def test_a_killed_training_goes_on_bit_for_bit(
    case: str, parts: dict[str, ImageSet], data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    options, share, workers = KILLED[case]
    recipe = Recipe(**{"epochs": 2, "batch": 32, "precision": "f32", "workers": 0, **options})
    sets, classes = (First(parts["train"]), parts["val"]), data.catalog.classes
    whole = network()
    loop.fit(whole, *sets, recipe, 7, tmp_path / "whole", classes)

    steps = recipe.epochs * (len(sets[0]) // recipe.batch)
    with pytest.raises(KeyboardInterrupt):
        loop.fit(dying(network(), max(1, int(share * steps))), *sets, recipe, 7, tmp_path / "broken", classes)
    again = network()
    with torch.no_grad():  # what is in memory must not matter
        for parameter in again.parameters():
            parameter.zero_()
    rest = recipe.model_copy(update={"workers": workers})
    progress = loop.fit(again, *sets, rest, 7, tmp_path / "broken", classes)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert len(progress.history) == 2
    assert progress.history[0]["train_loss"] != progress.history[1]["train_loss"]


def losses(parts: dict[str, ImageSet], directory: Path, **options: Any) -> list[float]:
    """Loss of each of six epochs; the digits are learned."""
    recipe = Recipe(**{"epochs": 6, "precision": "f32", "batch": 32, "workers": 0, **options})
    progress = loop.fit(network(0.0), parts["train"], parts["val"], recipe, 1, directory)
    assert max(row["val_top1"] for row in progress.history) > 75
    return [row["train_loss"] for row in progress.history]


@pytest.fixture(scope="module")
def plain(parts: dict[str, ImageSet], tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    return losses(parts, tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize("options", [{"mixup": 0.2, "cutmix": 1.0}, {"class_weights": 0.999, "sampler": "sqrt"}])
def test_each_option_trains_and_is_another_training(
    options: dict[str, Any], parts: dict[str, ImageSet], plain: list[float], tmp_path: Path
) -> None:
    found = losses(parts, tmp_path, **options)
    assert found[0] != plain[0]
    assert (found[-1] > 1.3 * plain[-1]) == ("mixup" in options), "mixed labels cannot be learned"


def test_class_weights_and_a_sampler_together_are_warned_of(
    parts: dict[str, ImageSet], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options: dict[str, dict[str, Any]] = {
        "both": {"sampler": "balanced", "class_weights": 0.99},
        "weights": {"class_weights": 0.99},
        "sampler": {"sampler": "balanced"},
    }
    warned = {}
    for name, chosen in options.items():
        loop.fit(network(), parts["train"], parts["val"], Recipe(epochs=1, **chosen), 1, tmp_path / name)
        warned[name] = "count twice" in capsys.readouterr().err
    assert warned == {"both": True, "weights": False, "sampler": False}


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
