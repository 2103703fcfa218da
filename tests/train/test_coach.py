"""The coach speaks of trainings that are broken on purpose, each in its own way, and is silent on healthy ones."""

from __future__ import annotations

import functools
import itertools
import math
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from torchstone.core import machine, registry, tables
from torchstone.core.contracts import ImageSet
from torchstone.core.errors import TrainingError
from torchstone.core.values import Artifact, Finding
from torchstone.data import findings
from torchstone.data.cache import open_images
from torchstone.data.preprocess import default_preprocess
from torchstone.evaluate import peaks, predict
from torchstone.models import store, zoo
from torchstone.models.deployable import Deployable
from torchstone.stages.read import Data
from torchstone.train import coach, history, loop, recipes
from torchstone.train.coach import compute_bound, small_val
from torchstone.train.recipe import Recipe
from torchstone.train.telemetry import Telemetry

PREPROCESS = default_preprocess(32)
IMAGES = 416
"""Enough for 13 steps of 32 an epoch."""
Sets = dict[str, ImageSet]
Network = Callable[[], nn.Module]


class Chosen:
    """Some rows of an image set (contracts.ImageSet), perhaps with other labels, perhaps slow to come."""

    def __init__(self, inner: ImageSet, rows: Any, labels: Any = None, pause: float = 0.0) -> None:
        self.inner, self.rows, self.pause = inner, np.asarray(rows), pause
        self.labels = inner.labels[self.rows] if labels is None else np.asarray(labels)
        self.items = [inner.items[int(row)] for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def images(self, rows: Any) -> Any:
        return self.inner.images(self.rows[rows])

    def stored(self, rows: Any) -> Any:
        time.sleep(self.pause)
        return self.inner.stored(self.rows[rows])

    def encoded(self, row: int) -> bytes:
        return self.inner.encoded(int(self.rows[row]))


@pytest.fixture(autouse=True)
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """These networks are so small that a second thread only gets in the way."""
    monkeypatch.setattr(machine, "usable_cores", lambda: 1)


@pytest.fixture(scope="module")
def sets(data: Data) -> Sets:
    whole = {part: open_images(data.catalog, data.split, part, PREPROCESS, data.run.cache) for part in ("train", "val")}
    return {"train": Chosen(whole["train"], np.arange(IMAGES)), "val": whole["val"]}


def lenet() -> nn.Module:
    return zoo.build("lenet5", classes=10)


def brightness() -> nn.Module:
    """Sees nothing of an image but how bright it is."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 10))


def sigmoids() -> nn.Module:
    """Ten dense layers with sigmoids, whose slope is a quarter at most."""
    sizes = [3 * 64] + [32] * 9
    layers = [layer for a, b in itertools.pairwise(sizes) for layer in (nn.Linear(a, b), nn.Sigmoid())]
    return nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), *layers, nn.Linear(32, 10))


def scaled(factor: float) -> Network:
    def build() -> nn.Module:
        network = lenet()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(factor if parameter.ndim > 1 else 1)
        return network

    return build


def silenced() -> nn.Module:
    """LeNet-5 whose first dense layer has biases that no image overcomes."""
    network = lenet()
    with torch.no_grad():
        network.get_submodule("7").bias.fill_(-20)  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
    return network


class Bursts(nn.Module):
    """Passes on what it is given, but from its twentieth training step on multiplied by infinity."""

    calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += self.training
        return x * torch.inf if self.calls >= 20 else x


class Root(nn.Module):
    """Adds the square root of zero, which has a value, and no slope."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + (0 * x).sqrt()


def with_layer(layer: nn.Module) -> Network:
    return lambda: nn.Sequential(*list(lenet().children())[:6], layer, *list(lenet().children())[6:])


def watched(
    sets: Sets, directory: Path, network: Network, seed: int = 1, train: ImageSet | None = None, **options: Any
) -> tuple[Telemetry, loop.Progress | None]:
    """A training with telemetry; None where it broke off."""
    torch.manual_seed(3)
    telemetry = Telemetry()
    model = Deployable(network(), PREPROCESS)
    recipe = Recipe(**{"batch": 32, "epochs": 8, "workers": 0, **options})
    try:
        progress = loop.fit(
            model, train or sets["train"], sets["val"], recipe, seed, directory,
            classes=[f"digit {number}" for number in range(10)], observers=(telemetry,),
        )  # fmt: skip
    except TrainingError:
        return telemetry, None
    return telemetry, progress


def diagnosed(sets: Sets, directory: Path, network: Network = lenet, **more: Any) -> dict[str, Finding]:
    telemetry, progress = watched(sets, directory, network, **more)
    found = telemetry.keep(directory, progress.best_epoch if progress else 0)
    assert findings.load(directory) == found
    return {finding.check: finding for finding in found}


BROKEN: dict[str, tuple[Network, dict[str, Any], set[str]]] = {
    "under_fitting": (brightness, {"lr": 0.03}, {"rate_too_low", "rate_too_high", "divergence", "over_fitting"}),
    "plateau": (brightness, {"lr": 0.03, "schedule": "constant", "epochs": 12}, {"divergence", "over_fitting"}),
    "divergence": (lenet, {"optimiser": "sgd", "lr": 3.0}, {"rate_too_low", "over_fitting"}),
    "rate_too_high": (lenet, {"lr": 0.3}, {"rate_too_low", "vanishing_gradients", "over_fitting"}),
    "rate_too_low": (lenet, {"lr": 1e-5}, {"rate_too_high", "vanishing_gradients", "dead_relus", "over_fitting"}),
    "exploding_gradients": (scaled(8), {"lr": 1e-5}, {"vanishing_gradients", "dead_relus"}),
    "vanishing_gradients": (sigmoids, {}, {"exploding_gradients", "dead_relus", "rate_too_high"}),
    "dead_relus": (silenced, {}, {"exploding_gradients", "vanishing_gradients", "rate_too_high"}),
}
"""A network and options with that fault, and findings that would be beside the point."""


@pytest.fixture(scope="module")
def broken(sets: Sets, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Finding]]:
    """What is said of one of them, each trained once."""

    @functools.cache
    def of(check: str) -> dict[str, Finding]:
        network, options, _ = BROKEN[check]
        return diagnosed(sets, tmp_path_factory.mktemp(check), network, **options)

    return of


@pytest.mark.parametrize("check", BROKEN)
def test_it_says_what_is_wrong(check: str, broken: Callable[[str], dict[str, Finding]]) -> None:
    found = broken(check)
    assert check in found
    assert not BROKEN[check][2] & set(found)
    assert found[check].evidence
    assert found[check].severity == "warning"


def test_a_layer_is_named(broken: Callable[[str], dict[str, Finding]]) -> None:
    dead = broken("dead_relus")["dead_relus"]
    assert dead.evidence["layers"] == {"7": 1.0}
    assert "'7' (Linear) 100 %" in dead.message
    small = broken("vanishing_gradients")["vanishing_gradients"]
    sizes = list(small.evidence["layers"].values())
    assert sizes[0] < 1e-4 * sizes[-1]
    assert "first layer, '2' (Linear)" in small.message


def test_what_it_says_to_try_can_be_typed(broken: Callable[[str], dict[str, Finding]]) -> None:
    """Every option of a hint is one of the recipe's, with a value that it takes."""
    hints = [finding.hint or "" for check in BROKEN for finding in broken(check).values()]
    settings = [pair for hint in hints for pair in re.findall(r"--set (\w+)=([^\s;,)]+)", hint)]
    assert {"lr", "clip", "warmup", "epochs", "init"} <= {name for name, _ in settings}
    tried = [option.split("=") for check in BROKEN for finding in broken(check).values() for option in finding.tries]
    for name, value in [*settings, *tried]:
        recipes.changed(Recipe(), {name: value})


@pytest.mark.parametrize("check", BROKEN)
def test_what_follows_from_a_fault_is_said_after_it_and_one_rate_is_proposed(
    check: str, broken: Callable[[str], dict[str, Finding]]
) -> None:
    found = broken(check)
    told = list(found)
    causes = [finding for finding in found.values() if finding.follows is None]
    cause = "rate_too_high" if check == "divergence" else check  # which has its own cause: a rate of 3
    assert cause in {finding.check for finding in causes}, "the fault that was planted is a cause"
    for finding in found.values():
        if finding.follows is not None:
            assert told.index(finding.follows) < told.index(finding.check)
            assert found[finding.follows].follows is None
            assert (finding.hint, finding.tries) == (None, ())
    rates = [option for finding in causes for option in finding.tries if option.startswith("lr=")]
    assert len(rates) <= 1
    if check == "rate_too_high":
        assert told[0] == check
        assert len(rates) == 1
        assert set(told[1:]) >= {"dead_relus", "never_predicted"}
        assert {finding.follows for finding in list(found.values())[1:]} == {check}


class Fixed:
    """A check of a plug-in that always has something to say."""

    requires = ()

    def __init__(self, name: str, severity: Any, explains: tuple[str, ...] = ()) -> None:
        self.name, self.severity, self.explains = name, severity, explains

    def run(self, context: coach.Record) -> list[Finding]:
        return [Finding(check=self.name, severity=self.severity, message=self.name, hint="try", tries=("lr=1",))]


def test_causes_come_first_and_a_consequence_of_a_consequence_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = [
        Fixed("a", "info"), Fixed("e", "warning", ("d",)), Fixed("d", "error", ("c",)), Fixed("c", "warning", ("a",)),
        Fixed("z", "error"), Fixed("round", "info", ("trip",)), Fixed("trip", "info", ("round",)),
    ]  # fmt: skip
    known = {check.name: check for check in checks}

    class Registry:
        def names(self) -> list[str]:
            return sorted(known)

        def get(self, name: str) -> Fixed:
            return known[name]

        ready = get

    monkeypatch.setattr(coach.registry, "training_checks", Registry())
    told = coach.diagnose(coach.Record(recipe=Recipe(), classes=("a",), history=[]))
    assert [(one.check, one.follows) for one in told[:5]] == [
        ("z", None), ("e", None), ("d", "e"), ("c", "e"), ("a", "e"),
    ]  # fmt: skip
    assert {one.check for one in told[5:]} == {"round", "trip"}, "nothing is lost where two blame each other"


def record_of(images: int, top1: list[float], best: int, **options: Any) -> coach.Record:
    history = [{"val_top1": value, "val_macro_f1": value, "train_loss": 1.0} for value in top1]
    labels = np.array([images // 2, images - images // 2])
    return coach.Record(
        recipe=Recipe(**options), classes=("a", "b"), history=history, best_epoch=best, labels=labels
    )  # fmt: skip


@pytest.mark.parametrize(
    ("images", "top1", "options", "told"),
    [
        (24, [100.0, 95.8, 95.8], {}, True),
        (24, [100.0, 95.8, 95.8], {"metric": "macro_f1"}, True),
        (24, [100.0, 95.8, 95.8], {"metric": "loss"}, False),
        (24, [91.7, 66.7, 62.5], {}, False),
        (24, [91.7], {}, False),
        (108, [96.0, 95.0], {}, True),
        (109, [96.0, 95.0], {}, False),
        (5000, [96.0, 96.0], {}, False),
    ],
)
def test_a_val_too_small_to_choose_by(images: int, top1: list[float], options: Any, told: bool) -> None:
    found = small_val.SmallVal().run(record_of(images, top1, 1, **options))
    assert bool(found) == told
    for finding in found:
        assert finding.evidence["enough"] == 109
        assert f"{images} images" in finding.message
        assert "109 val images" in (finding.hint or "")
        assert not coach.of_the_model(finding), "a model may be good although its figure is not"


def test_luck_decides_between_such_epochs_as_often_as_it_says() -> None:
    """Two epochs 5 points apart that disagree on a tenth: on 109 images the better one leads in 95 % of all vals."""
    draws = np.random.default_rng(0)
    (found,) = small_val.SmallVal().run(record_of(24, [96.0, 96.0], 1))
    for images, least, most in ((found.evidence["enough"], 0.935, 0.975), (24, 0.6, 0.85)):
        better = draws.multinomial(images, [0.075, 0.025, 0.9], size=20_000)
        lead = (better[:, 0] > better[:, 1]).mean() + (better[:, 0] == better[:, 1]).mean() / 2
        assert least < lead < most


def test_over_fitting(sets: Sets, tmp_path: Path) -> None:
    few = Chosen(sets["train"], np.arange(64))
    options = {"augment": "none", "lr": 3e-3, "weight_decay": 0.0, "label_smoothing": 0.0, "epochs": 16, "patience": 16}
    found = diagnosed(sets, tmp_path, train=few, **options)
    assert set(found) - {"never_predicted"} == {"over_fitting"}
    numbers = found["over_fitting"].evidence
    assert numbers["last_val_loss"] > numbers["lowest_val_loss"]
    assert numbers["train_top1"] > numbers["val_top1"] + 15


@pytest.mark.parametrize(
    ("network", "where", "batch"),
    [
        (with_layer(Bursts()), "the output of layer '6' (Bursts)", "batch 7 of epoch 2"),
        (with_layer(Root()), "the gradient that leaves layer '6' (Root)", "batch 1 of epoch 1"),
        (scaled(math.nan), "in the weights '0.weight', before this step", "batch 1 of epoch 1"),
    ],
)
def test_the_first_that_is_no_number_is_named(
    network: Network, where: str, batch: str, sets: Sets, tmp_path: Path
) -> None:
    found = diagnosed(sets, tmp_path, network)["not_a_number"]
    assert found.severity == "error"
    assert where in found.message
    assert batch in found.message


def test_images_that_are_no_numbers_are_named(sets: Sets, tmp_path: Path) -> None:
    telemetry, _ = watched(sets, tmp_path, lenet, epochs=1)
    x = torch.zeros(2, 3, 32, 32)
    x[1, 0, 0, 0] = torch.nan
    job = telemetry._job
    where = telemetry.broke(job, 3, x, np.array([5, 6]), "loss", 1)
    assert where is not None
    assert sets["train"].items[5] in where


def test_looking_for_it_changes_nothing(sets: Sets, tmp_path: Path) -> None:
    telemetry, _ = watched(sets, tmp_path, lambda: nn.Sequential(lenet(), nn.BatchNorm1d(10)), epochs=1)
    job = telemetry._job
    before = {name: value.clone() for name, value in job.model.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    for what in ("loss", "gradient"):
        assert telemetry.broke(job, 3, torch.ones(2, 3, 32, 32), np.array([5, 6]), what, 2) is None
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(value, before[name]) for name, value in job.model.state_dict().items())


def test_a_training_that_waits_for_its_images(sets: Sets, tmp_path: Path) -> None:
    slow = Chosen(sets["train"], np.arange(IMAGES), pause=0.06)
    found = diagnosed(sets, tmp_path, train=slow, epochs=4)["data_bound"]
    assert found.evidence["waited_share"] > 0.3
    assert "--workers" in (found.hint or "")


def test_float32_where_the_processor_has_bf16(sets: Sets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peaks, "bf16_pays", lambda: True)
    monkeypatch.setattr(compute_bound, "WORTH", 0.01)  # however fast this machine is
    few = Chosen(sets["train"], np.arange(96))
    options: dict[str, Any] = {"precision": "f32", "epochs": 3, "augment": "none"}
    found = diagnosed(sets, tmp_path / "f32", lambda: zoo.build("resnet20", classes=10), train=few, **options)
    assert found["compute_bound"].severity == "info"
    monkeypatch.setattr(peaks, "bf16_pays", lambda: False)
    assert "compute_bound" not in diagnosed(sets, tmp_path / "without", train=few, **options)


@pytest.mark.parametrize(
    ("precision", "native", "waited", "seconds", "told"),
    [("f32", True, 0.05, 10.0, True), ("auto", True, 0.05, 10.0, False), ("f32", False, 0.05, 10.0, False),
     ("f32", True, 0.5, 10.0, False), ("f32", True, 0.05, 0.1, False)],
)  # fmt: skip
def test_when_float32_is_worth_a_word(precision: Any, native: bool, waited: float, seconds: float, told: bool) -> None:
    history = [{"waited_share": waited, "seconds": seconds}] * 3
    record = coach.Record(recipe=Recipe(precision=precision), classes=("a", "b"), history=history, bf16_pays=native)
    assert bool(compute_bound.ComputeBound().run(record)) == told


def test_a_class_that_is_never_predicted(sets: Sets, tmp_path: Path) -> None:
    labels = sets["train"].labels
    rare = np.flatnonzero(labels == 8)
    some = Chosen(sets["train"], np.setdiff1d(np.arange(IMAGES), rare[2:]))
    found = diagnosed(sets, tmp_path, train=some, epochs=10)
    assert found["never_predicted"].evidence["classes"] == ["digit 8"]
    assert found["never_predicted"].tries == ("sampler=balanced",)
    assert "under_fitting" not in found


def test_labels_that_look_wrong(sets: Sets, tmp_path: Path) -> None:
    labels, draws = sets["train"].labels.copy(), np.random.default_rng(0)
    wrong = draws.choice(IMAGES, 20, replace=False)
    labels[wrong] = (labels[wrong] + draws.integers(1, 10, 20)) % 10
    found = diagnosed(sets, tmp_path, train=Chosen(sets["train"], np.arange(IMAGES), labels), epochs=14)
    assert set(found) == {"wrong_labels"}
    named = found["wrong_labels"].items
    items = list(sets["train"].items)
    planted = {items[row]: sets["train"].labels[row] for row in wrong.tolist()}
    assert len(planted.keys() & set(named)) >= 15
    assert len(set(named) - planted.keys()) <= 2
    suggested = dict(zip(named, found["wrong_labels"].suggested, strict=True))
    assert sum(suggested.get(item) == f"digit {label}" for item, label in planted.items()) >= 14
    assert list(found["wrong_labels"].scores) == sorted(found["wrong_labels"].scores, reverse=True)


def of_the_session(trained: Artifact) -> Network:
    return lambda: store.load(trained).network


HEALTHY: dict[str, tuple[str, dict[str, Any]]] = {
    "LeNet-5": ("lenet5", {"epochs": 16}),
    "ResNet-20": ("resnet20", {"epochs": 5}),
    "ResNet-20 with MixUp": ("resnet20", {"epochs": 5, "mixup": 0.2, "augment": "standard"}),
    "SGD, one cycle": ("lenet5", {"epochs": 14, "optimiser": "sgd", "lr": 0.05, "schedule": "one-cycle"}),
}


@pytest.mark.parametrize("case", HEALTHY)
def test_it_is_silent_on_a_healthy_training(case: str, sets: Sets, tmp_path: Path) -> None:
    name, options = HEALTHY[case]
    found = diagnosed(sets, tmp_path, lambda: zoo.build(name, classes=10), **options)
    assert [finding.message for finding in found.values()] == []


def test_it_is_silent_on_a_healthy_finetune(trained: Artifact, sets: Sets, tmp_path: Path) -> None:
    options = {**recipes.finetune().model_dump(exclude={"schema_version"}), "workers": 0}
    options |= {"epochs": 12, "lr": 2e-3}  # small steps over few images settle nothing
    found = diagnosed(sets, tmp_path, of_the_session(trained), **options)
    assert [finding.message for finding in found.values()] == []


def test_a_smoke_run_is_no_bad_training(sets: Sets, tmp_path: Path) -> None:
    found = diagnosed(sets, tmp_path, epochs=2)
    assert not set(found) - {"never_predicted"}


def test_it_changes_nothing_of_the_training(sets: Sets, tmp_path: Path) -> None:
    weights = []
    for observers in ((), (Telemetry(),)):
        torch.manual_seed(3)
        model = Deployable(nn.Sequential(lenet(), nn.Dropout(0.2)), PREPROCESS)
        recipe = Recipe(batch=32, epochs=2, workers=0)
        loop.fit(model, sets["train"], sets["val"], recipe, 1, tmp_path / str(len(observers)), observers=observers)
        weights.append(model.state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_a_killed_training_is_diagnosed_as_if_it_had_not_been(sets: Sets, tmp_path: Path) -> None:
    options: dict[str, Any] = {"lr": 0.3, "epochs": 4, "checkpoint_seconds": 0.0}
    whole, progress = watched(sets, tmp_path / "whole", lenet, **options)
    assert progress is not None

    def dying() -> nn.Module:
        network, left = lenet(), [29]

        def count(module: nn.Module, _: Any) -> None:
            left[0] -= module.training
            if left[0] < 0:
                raise KeyboardInterrupt

        network.register_forward_pre_hook(count)
        return network

    with pytest.raises(KeyboardInterrupt):
        watched(sets, tmp_path / "broken", dying, **options)
    again, _ = watched(sets, tmp_path / "broken", lenet, **options)
    one, other = whole.record(progress.best_epoch), again.record(progress.best_epoch)
    np.testing.assert_equal([vars(layer) for layer in one.layers], [vars(layer) for layer in other.layers])
    assert [vars(suspect) for suspect in one.suspects] == [vars(suspect) for suspect in other.suspects]
    assert np.array_equal(one.predicted, other.predicted)
    timing = {"seconds", "images_per_second", "waited_share"}
    for left, right in zip(one.history, other.history, strict=True):
        assert {k: v for k, v in left.items() if k not in timing} == {k: v for k, v in right.items() if k not in timing}


def test_what_is_stored_can_be_read(sets: Sets, tmp_path: Path) -> None:
    diagnosed(sets, tmp_path, epochs=3)
    layers, _ = tables.read(tmp_path / "layers.parquet")
    assert layers["layer"].unique(maintain_order=True).to_list() == ["0", "3", "7", "9", "11"]
    assert layers["epoch"].max() == 3
    assert (layers["gradient"] > 0).all()
    images, header = tables.read(tmp_path / "images.parquet")
    assert images["loss"].to_list() == sorted(images["loss"].to_list(), reverse=True)
    assert images["loss"][0] > header["median_loss"]
    assert set(images["item"].to_list()) <= set(sets["train"].items)


def test_what_the_kept_weights_answered_on_val_is_stored(sets: Sets, tmp_path: Path) -> None:
    """Also by a training that goes on after its best epoch: the answers lie with that epoch's weights."""
    options: dict[str, Any] = {"epochs": 4, "augment": "none", "lr": 0.02, "schedule": "constant"}
    telemetry, progress = watched(sets, tmp_path / "checkpoints", lenet, **options)
    assert progress is not None
    telemetry.keep(tmp_path, progress.best_epoch)
    found = predict.load(tmp_path / history.ANSWERS)
    assert found.items.tolist() == list(sets["val"].items)
    assert (found.header["part"], found.header["epoch"]) == ("val", progress.best_epoch)
    row = progress.history[progress.best_epoch - 1]
    assert 100 * np.mean(found.scores.argmax(1) == found.labels) == pytest.approx(row["val_top1"])
    assert loop.cross_entropy(found.scores.copy(), found.labels) == pytest.approx(row["val_loss"])


def test_every_check_is_named_as_its_file(sets: Sets) -> None:
    assert len(registry.training_checks.names()) == 15
    assert coach.diagnose(coach.Record(recipe=Recipe(), classes=("a", "b"), history=[])) == []
