from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from torchstone.core import tables
from torchstone.core.contracts import ImageSet
from torchstone.core.errors import ArtifactError, ConfigError, DataError, StorageError, TrainingError
from torchstone.core.values import Artifact
from torchstone.data.augment import POLICIES
from torchstone.data.preprocess import default_preprocess
from torchstone.evaluate import peaks
from torchstone.models import zoo
from torchstone.models.deployable import Deployable
from torchstone.stages.read import Data
from torchstone.train import device, loop, step
from torchstone.train.checkpoint import Store
from torchstone.train.job import Job
from torchstone.train.observe import Epoch, Observer, Step
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
    case: str, parts: dict[str, ImageSet], data: Data, tmp_path: Path
) -> None:
    options, share, workers = KILLED[case]
    recipe = Recipe(**{"epochs": 2, "batch": 32, "precision": "f32", "workers": 0, "checkpoint_seconds": 0, **options})
    sets, classes = (First(parts["train"]), parts["val"]), data.catalog.classes
    whole = network()
    loop.fit(whole, *sets, recipe, 7, tmp_path / "whole", classes=classes)

    steps = recipe.epochs * (len(sets[0]) // recipe.batch)
    with pytest.raises(KeyboardInterrupt):
        loop.fit(dying(network(), max(1, int(share * steps))), *sets, recipe, 7, tmp_path / "broken", classes=classes)
    again = network()
    with torch.no_grad():  # what is in memory must not matter
        for parameter in again.parameters():
            parameter.zero_()
    rest = recipe.model_copy(update={"workers": workers})
    progress = loop.fit(again, *sets, rest, 7, tmp_path / "broken", classes=classes)
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
    recipe = Recipe(epochs=3, optimiser="sgd", lr=1e12, clip=0, warmup=0, precision="f32")
    with pytest.raises(TrainingError, match="lower the learning rate"):
        loop.fit(network(0.0), parts["train"], parts["val"], recipe, 1, tmp_path)


class Breaking(Observer):
    """Spoils one step: NaN in a layer's output, or in a gradient alone."""

    def __init__(self, what: str, number: int) -> None:
        self.what, self.number, self.asked = what, number, ""

    def begin(self, job: Job) -> None:
        layer = next(module for module in job.model.network.modules() if isinstance(module, nn.Conv2d))
        if self.what == "loss":
            self.left = self.number
            layer.register_forward_hook(self._spoil)
        self.weight = layer.weight

    def _spoil(self, module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        self.left -= module.training
        return output * math.nan if self.left == -1 and module.training else output

    def gradients(self, job: Job, number: int) -> None:
        if self.what == "gradient" and number == self.number:
            assert self.weight.grad is not None
            self.weight.grad[0] = math.inf

    def broke(self, job: Job, number: int, x: torch.Tensor, rows: Any, what: str, parts: int) -> str:
        assert x.shape[1:] == (3, 32, 32)
        self.asked = what
        return "first in the layer 'c1'"


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_what_is_no_number_stops_before_the_weights_are_changed(
    what: str, parts: dict[str, ImageSet], tmp_path: Path
) -> None:
    recipe = Recipe(epochs=2, batch=32, precision="f32", workers=0, checkpoint_seconds=0)
    sets = First(parts["train"]), parts["val"]
    breaking = Breaking(what, 8)
    place = f"the {what} is no longer a number in epoch 2, batch 3; first in the layer 'c1'"
    with pytest.raises(TrainingError, match=place):
        loop.fit(network(), *sets, recipe, 7, tmp_path / "broken", observers=[breaking])
    assert breaking.asked == what
    again, whole = network(), network()
    loop.fit(again, *sets, recipe, 7, tmp_path / "broken")  # the last checkpoint is intact
    loop.fit(whole, *sets, recipe, 7, tmp_path / "whole")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_an_observer_that_cannot_say_where_it_broke_does_not_hide_that_it_did(
    parts: dict[str, ImageSet], tmp_path: Path
) -> None:
    class Helpless(Breaking):
        ended: BaseException | None = None

        def broke(self, job: Job, number: int, x: torch.Tensor, rows: Any, what: str, parts: int) -> str:
            raise RuntimeError("out of memory")

        def broken_off(self, error: BaseException) -> None:
            self.ended = error

    helpless = Helpless("loss", 3)
    recipe = Recipe(epochs=1, batch=32, precision="f32", workers=0)
    with pytest.raises(TrainingError, match="batch 4; the last checkpoint") as raised:
        loop.fit(network(), First(parts["train"]), parts["val"], recipe, 7, tmp_path, observers=[helpless])
    assert helpless.ended is raised.value


def test_memory_that_runs_out_late_shows_batch_norms_no_image_twice(
    parts: dict[str, ImageSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(3)
    seen = Deployable(zoo.build("resnet20", classes=10), PREPROCESS)
    backward, calls = step._backward, [0]

    def scarce(*arguments: Any) -> Any:
        calls[0] += 1
        found = backward(*arguments)
        if calls[0] == 3:
            raise MemoryError
        return found

    monkeypatch.setattr(step, "_backward", scarce)
    recipe = Recipe(epochs=1, batch=32, precision="f32", workers=0)
    progress = loop.fit(seen, First(parts["train"], 128), parts["val"], recipe, 7, tmp_path)
    assert progress.parts == 2
    counts = [value for name, value in seen.network.state_dict().items() if name.endswith("num_batches_tracked")]
    assert {int(count) for count in counts} == {1 + 1 + 2 + 2}, "the third step's first attempt does not count"


def test_float16_leaves_a_step_out_whose_gradient_overflows(parts: dict[str, ImageSet], tmp_path: Path) -> None:
    class Unscaled(Breaking):
        norms: list[float] = []  # noqa: RUF012

        def gradients(self, job: Job, number: int) -> None:
            """Nothing: what comes too large out of the backward pass is the scaler's to see."""

        def begin(self, job: Job) -> None:
            count = [0]
            weight = next(job.model.network.parameters())

            def overflow(gradient: torch.Tensor) -> torch.Tensor:
                count[0] += 1
                return gradient * math.inf if count[0] == self.number else gradient

            weight.register_hook(overflow)

        def step(self, step: Step) -> None:
            self.norms.append(step.gradient)

    observer = Unscaled("", 3)
    recipe = Recipe(epochs=1, batch=32, precision="f16", workers=0)
    progress = loop.fit(network(), First(parts["train"]), parts["val"], recipe, 1, tmp_path, observers=[observer])
    assert [math.isfinite(norm) for norm in observer.norms] == [True, True, False, True, True, True]
    state = (Store(tmp_path).newest() or ("", {}))[1]
    assert state["scaler"]["scale"] == 2.0**15, "halved once"
    assert math.isfinite(progress.history[0]["gradient"])


def test_a_gpu_that_is_not_there_is_said() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ConfigError, match="device = 'cuda', but"):
        device.use("cuda")
    assert device.device().type == "cpu"
    with pytest.raises(ConfigError, match="refused"):
        device.use("tpu")


def test_a_read_only_place_is_refused_before_anything_is_trained(parts: dict[str, ImageSet]) -> None:
    model = dying(network(), 0)
    with pytest.raises(StorageError, match="no permission"):
        loop.fit(model, parts["train"], parts["val"], Recipe(epochs=1), 1, Path("/sys/kernel/torchstone"))


def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    parts: dict[str, ImageSet], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = Recipe(epochs=2, batch=32, precision="f32", workers=0, checkpoint_seconds=0)
    sets, whole, again = (First(parts["train"]), parts["val"]), network(), network()
    loop.fit(whole, *sets, recipe, 7, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        loop.fit(dying(network(), 8), *sets, recipe, 7, tmp_path / "broken")
    newest = max((tmp_path / "broken").glob("step-*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:-1])
    loop.fit(again, *sets, recipe, 7, tmp_path / "broken")
    said = capsys.readouterr().err
    assert "going on from the one before" in said
    assert newest.stem in said
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_the_checkpoints_of_another_training_are_refused(parts: dict[str, ImageSet], tmp_path: Path) -> None:
    recipe = Recipe(epochs=1, batch=32, precision="f32", workers=0)
    sets = First(parts["train"]), parts["val"]
    loop.fit(network(), *sets, recipe, 7, tmp_path)
    with pytest.raises(ArtifactError, match=r"another training: epochs = 1, not 2, lr = 0.002, not 0.1"):
        loop.fit(network(), *sets, recipe.model_copy(update={"epochs": 2, "lr": 0.1}), 7, tmp_path)


def test_another_arithmetic_is_another_training(parts: dict[str, ImageSet], tmp_path: Path) -> None:
    """'auto' says nothing of it: a GPU where there is one, BF16 where the processor is not much slower with it."""
    recipe = Recipe(epochs=1, batch=32, workers=0)
    sets = First(parts["train"]), parts["val"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peaks, "bf16_pays", lambda: True)
        loop.fit(network(), *sets, recipe, 7, tmp_path)
        patch.setattr(peaks, "bf16_pays", lambda: False)
        with pytest.raises(ArtifactError, match=r"arithmetic = '.* bf16', not '.* f32'"):
            loop.fit(network(), *sets, recipe, 7, tmp_path)


def test_another_number_of_threads_is_warned_of(
    parts: dict[str, ImageSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, sets = Recipe(epochs=1, batch=32, precision="f32", workers=0), (First(parts["train"]), parts["val"])
    told = []
    for cores in (1, 1, 2):
        monkeypatch.setattr(loop.machine, "usable_cores", lambda cores=cores: cores)
        loop.fit(network(), *sets, recipe, 7, tmp_path)
        told.append("began with 1 threads of the processor and goes on with 2" in capsys.readouterr().err)
    assert told == [False, False, device.device().type == "cpu"]


def test_a_checkpoint_in_which_something_is_missing_is_said(parts: dict[str, ImageSet], tmp_path: Path) -> None:
    recipe, sets = Recipe(epochs=1, batch=32, precision="f32", workers=0), (First(parts["train"]), parts["val"])
    loop.fit(network(), *sets, recipe, 7, tmp_path)
    store = Store(tmp_path)
    _, stored = store.newest() or ("", {})
    del stored["scaler"]
    store.save(10**6, stored)
    with pytest.raises(ArtifactError, match=r"does not hold what this version expects \(KeyError: 'scaler'\)"):
        loop.fit(network(), *sets, recipe, 7, tmp_path)


def test_parts_of_a_batch_add_up_to_the_whole(parts: dict[str, ImageSet], tmp_path: Path) -> None:
    weights = []
    for accumulate in (1, 3):  # 32 images in parts of 11, 11 and 10
        model = network(0.0)
        recipe = Recipe(
            epochs=1, batch=32, optimiser="sgd", lr=0.01, accumulate=accumulate, precision="f32", workers=0, l1=1e-3
        )
        loop.fit(model, First(parts["train"]), parts["val"], recipe, 1, tmp_path / str(accumulate))
        weights.append(torch.cat([value.flatten() for value in model.network.state_dict().values()]))
    start = torch.cat([value.flatten() for value in network(0.0).network.state_dict().values()])
    assert torch.allclose(weights[0], weights[1], atol=1e-6)
    assert (weights[0] - start).abs().max() > 1e-3


@pytest.mark.parametrize("metric", ["loss", "macro_f1", "balanced_accuracy"])
def test_any_metric_chooses_the_best_epoch(metric: Any, parts: dict[str, ImageSet], tmp_path: Path) -> None:
    recipe = Recipe(
        epochs=3, batch=32, lr=0.02, warmup=0, schedule="constant", metric=metric, precision="f32", workers=0
    )
    progress = loop.fit(network(0.0), First(parts["train"]), parts["val"], recipe, 1, tmp_path)
    column = [row[f"val_{metric}"] * (-1 if metric == "loss" else 1) for row in progress.history]
    assert progress.best_epoch == 1 + int(np.argmax(column))


def test_the_history_says_what_was_seen(parts: dict[str, ImageSet], tmp_path: Path) -> None:
    class Watching(Observer):
        name = "watching"

        def __init__(self) -> None:
            self.steps: list[Step] = []
            self.epochs: list[Epoch] = []
            self.ended = 0

        def step(self, step: Step) -> None:
            self.steps.append(step)

        def epoch(self, epoch: Epoch) -> dict[str, float]:
            self.epochs.append(epoch)
            return {"mine": 2.0 * epoch.number}

        def end(self, best_epoch: int, answers: Any) -> None:
            self.ended = best_epoch

    watching = Watching()
    recipe = Recipe(epochs=2, batch=32, precision="f32", workers=0, sampler="balanced")
    sets, quiet = (First(parts["train"]), parts["val"]), network()
    watched = network()
    progress = loop.fit(watched, *sets, recipe, 1, tmp_path / "watched", observers=[watching])
    loop.fit(quiet, *sets, recipe, 1, tmp_path / "quiet")
    for name, value in quiet.state_dict().items():
        assert torch.equal(value, watched.state_dict()[name]), "an observer changes nothing"

    first = [step for step in watching.steps if step.epoch == 1]
    row = progress.history[0]
    table, header = tables.read(tmp_path / "watched" / "history.parquet")
    assert table.rows(named=True) == progress.history
    assert header == {"best_epoch": progress.best_epoch}
    assert [step.number for step in watching.steps] == list(range(12))
    assert row["train_loss"] == pytest.approx(float(torch.cat([step.losses for step in first]).mean()), rel=1e-5)
    assert row["gradient"] == pytest.approx(np.median([step.gradient for step in first]))
    assert row["lr"] == first[-1].lr
    assert row["seconds"] == pytest.approx(sum(step.seconds for step in first))
    assert row["waited_share"] == pytest.approx(sum(step.waited for step in first) / row["seconds"])
    assert all(math.isfinite(value) for each in progress.history for value in each.values())
    assert [row["mine"] for row in progress.history] == [2.0, 4.0]
    assert watching.ended == progress.best_epoch
    items = np.concatenate([step.items for step in first])
    counts = np.bincount(sets[0].labels[items], minlength=10)
    assert counts.max() - counts.min() <= 6, "balanced, but for the last batch, which is left out"
    logits = watching.epochs[0].logits
    assert row["val_top1"] == pytest.approx(100 * np.mean(logits.argmax(1) == watching.epochs[0].labels))


def test_too_few_images_for_a_batch(parts: dict[str, ImageSet], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="do not fill one batch"):
        loop.fit(network(), parts["train"], parts["val"], Recipe(batch=10_000), 1, tmp_path)
