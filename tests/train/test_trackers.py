"""Trackers, read back by the tools they write for."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from tracked import CLASSES, RECIPE, STEPS, Kill, fitted

from torchstone.config import Settings
from torchstone.core import registry
from torchstone.core.contracts import Track, TrackedTraining
from torchstone.core.errors import ConfigError, MissingPackageError
from torchstone.stages import train as stage
from torchstone.train import tracking
from torchstone.train.observe import Observer, Step
from torchstone.train.state import Progress

NAMES = ("tensorboard", "wandb", "mlflow")
OPTIONS = {"model": "lenet5", "recipe": RECIPE.model_dump(mode="json")}
KILLED = """
import sys
from pathlib import Path
from test_trackers import NAMES, followed
from tracked import Kill, fitted
root = Path(sys.argv[1])
fitted(root / "checkpoints", followed(root / "tracking", *NAMES), Kill(2, hard=True))
"""
Scalars = dict[str, list[tuple[int, float]]]


def followed(home: Path, *names: str) -> tracking.Tracking:
    (observer,) = tracking.observers(names, home, "digits", OPTIONS)
    assert isinstance(observer, tracking.Tracking)
    return observer


@pytest.fixture(scope="module", autouse=True)
def _offline(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("WANDB_MODE", "WANDB_PROJECT", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
            patch.delenv(name, raising=False)
        patch.setenv("WANDB_CACHE_DIR", str(tmp_path_factory.mktemp("wandb")))
        yield


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Progress, dict[str, torch.Tensor]]:
    """The training that nobody follows."""
    return fitted(tmp_path_factory.mktemp("alone") / "checkpoints")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, alone: tuple[Progress, dict[str, torch.Tensor]]) -> Path:
    """All trackers of one training in three attempts: one is killed in its first epoch, the next one interrupted in
    the second epoch, and the last one, in the same process, comes to the end."""
    root = tmp_path_factory.mktemp("followed")
    done = subprocess.run([sys.executable, "-c", KILLED, root], cwd=Path(__file__).parent, check=False)
    assert done.returncode == -signal.SIGKILL
    with pytest.raises(KeyboardInterrupt):
        fitted(root / "checkpoints", followed(root / "tracking", *NAMES), Kill(STEPS + 2))
    _, weights = fitted(root / "checkpoints", followed(root / "tracking", *NAMES))
    assert all(torch.equal(weights[name], value) for name, value in alone[1].items()), "it changed the training"
    return root / "tracking"


def check(found: Scalars, alone: Progress) -> None:
    """Every step once and in order, and every epoch with what the history says of it."""
    assert [step for step, _ in found["step/loss"]] == list(range(2 * STEPS))
    assert all(np.isfinite(value) for _, value in found["step/loss"])
    assert {"step/lr", "step/gradient", "step/waited", "step/seconds"} <= set(found)
    for name in ("train_loss", "val_loss", "val_top1", "val_macro_f1", "lr"):
        expected = [(STEPS - 1, alone.history[0][name]), (2 * STEPS - 1, alone.history[1][name])]
        assert [step for step, _ in found[f"epoch/{name}"]] == [step for step, _ in expected], name
        assert [value for _, value in found[f"epoch/{name}"]] == pytest.approx([value for _, value in expected]), name


def events(home: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (folder,) = (home / "tensorboard").iterdir()
    return EventAccumulator(str(folder), size_guidance={"images": 0, "histograms": 0}).Reload()


def test_tensorboard_has_the_numbers_of_all_attempts_in_one(home: Path, alone: Any) -> None:
    read = events(home)
    found = {tag: [(event.step, event.value) for event in read.Scalars(tag)] for tag in read.Tags()["scalars"]}
    check(found, alone[0])
    best = alone[0].best_epoch
    assert found["outcome/best_epoch"][0][1] == best
    assert found["outcome/val_top1"][0][1] == pytest.approx(alone[0].history[best - 1]["val_top1"])


def test_tensorboard_has_graph_weights_pictures_options_and_an_embedding(home: Path) -> None:
    read = events(home)
    tags = read.Tags()
    assert tags["graph"]
    assert any("Conv2d" in node.name for node in read.Graph().node)
    assert len([tag for tag in tags["distributions"] if tag.endswith("/weight")]) == 5, "LeNet-5's layers"
    assert [event.step for event in read.Histograms(tags["distributions"][0])] == [STEPS - 1, 2 * STEPS - 1]
    shown = {tag.partition("/")[0] for tag in tags["images"]}
    assert shown == {"samples", "mistakes"}
    assert {"_hparams_/experiment", "_hparams_/session_start_info", "_hparams_/session_end_info"} <= set(
        read.summary_metadata
    )
    started = read.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"lenet5" in started
    assert b"optimiser" in started
    (vectors,) = (home / "tensorboard").rglob("tensors.tsv")
    assert len(vectors.read_text().splitlines()) == 100
    lines = (vectors.parent / "metadata.tsv").read_text().splitlines()
    assert {line.partition(",")[0] for line in lines} == set(CLASSES)
    assert (vectors.parent / "sprite.png").stat().st_size > 0


def kept_by_wandb(folder: Path) -> list[Any]:
    """The records of an offline run."""
    from wandb.proto import wandb_internal_pb2

    (file,) = folder.glob("*.wandb")
    found = []
    for data in leveldb_records(file.read_bytes()[7:]):
        record: Any = vars(wandb_internal_pb2)["Record"]()
        record.ParseFromString(data)
        found.append(record)
    return found


def leveldb_records(content: bytes) -> list[bytes]:
    """What a log in LevelDB's format holds: blocks of 32 KiB (the file's seven first bytes belong to the first one),
    in which pieces have a checksum, a length and a kind: whole, first, middle, last."""
    found, parts, place = [], [], 7
    content = b"\0" * 7 + content
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        length = int.from_bytes(content[place + 4 : place + 6], "little")
        kind = content[place + 6]
        if kind == 0:
            break
        parts.append(content[place + 7 : place + 7 + length])
        place += 7 + length
        if kind in (1, 4):
            found.append(b"".join(parts))
            parts = []
    return found


def test_wandb_keeps_all_attempts_as_one_run_offline(home: Path, alone: Any) -> None:
    folders = sorted(path for path in (home / "wandb").iterdir() if path.name.startswith("offline-run-"))
    assert len(folders) == 3
    found: Scalars = {}
    ids, options, media = set(), set(), set()
    for folder in folders:
        for record in kept_by_wandb(folder):
            if record.WhichOneof("record_type") == "run":
                ids.add((record.run.project, record.run.run_id))
                options |= {item.key for item in record.run.config.update}
            if record.WhichOneof("record_type") == "history":
                row = {"/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
                media |= {name.removesuffix("/_type") for name in row if name.endswith("/_type")}
                for name, value in row.items():
                    if isinstance(value, int | float):
                        found.setdefault(name, []).append((row["step"], value))
    check(found, alone[0])
    assert len(ids) == 1
    assert {"model", "optimiser", "lr"} <= options
    assert {"samples", "mistakes"} <= media
    assert any(name.endswith("weight") for name in media), "histograms"


@pytest.mark.slow
def test_mlflow_has_one_finished_run_of_all_attempts(home: Path, alone: Any) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("torchstone")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["model"] == "lenet5"
    assert run.data.params["optimiser"] == RECIPE.optimiser
    found = {
        name: [(row.step, row.value) for row in sorted(client.get_metric_history(run.info.run_id, name), key=by_step)]
        for name in run.data.metrics
    }
    check(found, alone[0])
    assert found["outcome/best_epoch"][0][1] == alone[0].best_epoch
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"samples", "mistakes"}
    assert (home / "mlflow-artifacts").is_dir()


def by_step(metric: Any) -> int:
    return metric.step


class Unreliable:
    """Writes in a list, until a call of ``breaks`` fails; it also draws from every generator."""

    requires: ClassVar[tuple[str, ...]] = ()

    def __init__(self, breaks: str) -> None:
        self.breaks = breaks
        self.calls: list[str] = []

    def open(self, training: TrackedTraining) -> Track:
        self.said("open")
        return _Unreliable(self)

    def said(self, what: str) -> None:
        for draw in (random.random, np.random.random, torch.rand):
            draw(*([1] if draw is torch.rand else []))
        self.calls.append(what)
        if what == self.breaks:
            raise OSError("no space left on the server\nand more lines")


class _Unreliable(Track):
    id = "it"
    where = "over there"

    def __init__(self, parent: Unreliable) -> None:
        self.parent = parent

    def scalars(self, rows: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        self.parent.said("scalars")

    def graph(self, network: Any, example: Any) -> None:
        network(example)
        self.parent.said("graph")

    def close(self, outcome: Mapping[str, float], *, finished: bool) -> None:
        self.parent.said("close" if finished else "broken off")


@pytest.mark.parametrize("breaks", ["open", "graph", "scalars", "close"])
def test_a_tracker_that_fails_is_named_once_and_the_training_goes_on(
    breaks: str, alone: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, good = Unreliable(breaks), Unreliable("never")
    observer = tracking.Tracking({"bad": bad, "good": good}, tmp_path / "tracking", "digits", OPTIONS)
    _, weights = fitted(tmp_path / "checkpoints", observer)
    assert all(torch.equal(weights[name], value) for name, value in alone[1].items())
    said = capsys.readouterr().err
    assert said.count("warning: the tracker 'bad' failed") == 1
    assert "OSError: no space left on the server); the training goes on without it" in said
    assert bad.calls.count(breaks) == 1
    assert good.calls[-1] == "close"
    assert said.count("curves in good: over there") == 2, "when it begins, and at the end"


class Failing(Observer):
    """Raises an error after a step."""

    def __init__(self, after: int, error: BaseException) -> None:
        self.after, self.error = after, error

    def step(self, step: Step) -> None:
        if step.number == self.after:
            raise self.error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("no number")], ids=["stopped", "failed"])
def test_a_training_that_breaks_off_closes_its_trackers(error: BaseException, tmp_path: Path) -> None:
    tracker = Unreliable("never")
    observer = tracking.Tracking({"it": tracker}, tmp_path / "tracking", "digits", OPTIONS)
    with pytest.raises(type(error)):
        fitted(tmp_path / "checkpoints", observer, Failing(STEPS + 1, error))
    assert tracker.calls[-1] == "broken off"
    assert tracker.calls.count("broken off") == 1
    told = tracker.calls.count("scalars") - (STEPS + 1)  # once a checkpoint: one a step, but of the last one none
    assert told == isinstance(error, Exception), "what a training that goes on will tell is not told twice"


def test_mlflow_knows_of_a_training_that_was_broken_off(tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    with pytest.raises(KeyboardInterrupt):
        fitted(tmp_path / "checkpoints", followed(tmp_path / "tracking", "mlflow"), Kill(STEPS + 2))
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'tracking' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("torchstone")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "KILLED"


def test_steps_are_counted_from_0_where_no_batch_is_filled(tmp_path: Path) -> None:
    """As where a head is fitted to fewer images than a batch has."""
    observer = tracking.Tracking({}, tmp_path, "digits", OPTIONS)
    observer._job = SimpleNamespace(steps=0)  # pyright: ignore[reportAttributeAccessIssue]
    assert observer._last_of(1) == 0


def test_a_folder_that_cannot_be_made_stops_no_training(
    alone: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tracking").write_text("in the way")
    progress, _ = fitted(tmp_path / "checkpoints", followed(tmp_path / "tracking", "tensorboard"))
    assert progress.history[-1]["val_top1"] == alone[0].history[-1]["val_top1"]
    assert "the tracker 'tensorboard' failed" in capsys.readouterr().err


def test_nothing_is_tracked_unasked(tmp_path: Path) -> None:
    assert tracking.observers((), tmp_path / "tracking", "digits", OPTIONS) == []
    assert not (tmp_path / "tracking").exists()


def test_an_unknown_tracker_and_a_missing_package_are_said_before_any_image_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ConfigError, match="unknown tracker 'tensorbord'") as wrong:
        stage.check(Settings(data="digits", model="lenet5", track=("tensorbord",)))
    assert "tensorboard" in str(wrong.value.hint)
    monkeypatch.setattr(registry, "missing_packages", lambda names: [name for name in names if name == "mlflow"])
    with pytest.raises(MissingPackageError) as missing:
        stage.check(Settings(data="digits", model="lenet5", track=("mlflow",)))
    assert missing.value.hint == "pip install 'torchstone[track]'"


def test_a_run_is_the_same_whoever_follows_it() -> None:
    plain, tracked = (Settings(data="digits", model="lenet5", track=names) for names in ((), ("wandb",)))
    assert plain.run == tracked.run


def test_a_long_training_tells_of_some_steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tracking, "POINTS", 4)
    fitted(tmp_path / "checkpoints", followed(tmp_path / "tracking", "tensorboard"))
    assert [event.step for event in events(tmp_path / "tracking").Scalars("step/loss")] == [0, 3, 6, 9]


def test_options_are_plain_values() -> None:
    nested = {"a": {"freeze": ["x", "y"], "lr": 0.1, "dropout": None}, "b": True, "c": "text"}
    assert tracking.plain(nested) == {"freeze": "x, y", "lr": 0.1, "b": True, "c": "text"}
