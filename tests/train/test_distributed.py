"""Several processes under torchrun train one network, and lose nothing when one of them dies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import training
from test_killed import ALL, same
from torch import nn

from torchstone.core.artifact import load_artifact
from torchstone.core.errors import ConfigError
from torchstone.models import zoo
from torchstone.train import distributed, loop, optim
from torchstone.train.distributed import Ranks
from torchstone.train.job import Job
from torchstone.train.recipe import Recipe
from torchstone.train.state import State

SCRIPT = Path(__file__).with_name("training.py")


def torchrun(*command: str | Path, processes: int = 2, restarts: int = 0) -> subprocess.CompletedProcess[str]:
    """``command`` in several processes on this machine."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    launcher += [f"--max-restarts={restarts}", "--monitor-interval=0.1"]
    return subprocess.run(
        [*launcher, *map(str, command)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def together(directory: Path, options: dict[str, Any], deaths: Any = (), processes: int = 2) -> str:
    """Train as training.py does; ``deaths`` are [process, where it dies], one for each restart. Returns its stderr."""
    plan = directory.with_suffix(".json")
    plan.write_text(json.dumps({"directory": str(directory), "options": options, "deaths": deaths}))
    done = torchrun(SCRIPT, plan, processes=processes, restarts=len(deaths))
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def test_a_process_that_dies_costs_nothing(tmp_path: Path) -> None:
    options = {**ALL, "checkpoint_seconds": 0}
    together(tmp_path / "whole", options)
    told = together(tmp_path / "killed", options, [[1, ["step", 4]], [0, ["writing", 5, 0.4]], [0, ["gradients", 17]]])
    assert told.count("exitcode: -9") == 3
    same(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("options", [ALL, {"shard": True, "optimiser": "radam", "workers": 1}], ids=["all", "sharded"])
def test_ten_deaths_one_after_the_other(processes: int, options: dict[str, Any], tmp_path: Path) -> None:
    draws = np.random.default_rng(processes)
    options = {**options, "batch": 15}
    steps = sorted(draws.choice(np.arange(1, 20), 8, replace=False).tolist())
    deaths = [[int(draws.integers(processes)), ["step", step]] for step in steps]
    deaths[3:3] = [[0, ["writing", 3, 0.5]], [0, ["written", 3]]]
    together(tmp_path / "whole", options, processes=processes)
    told = together(tmp_path / "killed", options, deaths, processes)
    assert told.count("exitcode: -9") == 10
    same(tmp_path / "killed", tmp_path / "whole")


def test_two_processes_train_what_one_does(tmp_path: Path) -> None:
    """Without what depends on the images of a share: batch statistics, dropout, and what is mixed."""
    options = {"batch": 15, "freeze_norms": True, "dropout": 0.0, "ema": 0.9, "l1": 1e-4, "accumulate": 2}
    together(tmp_path / "two", options)
    training.train(tmp_path / "one", options)
    one, two = (torch.load(tmp_path / name / "end.pt", weights_only=True) for name in ("one", "two"))
    for name, value in one.items():
        assert torch.allclose(value, two[name], atol=1e-5), name
    one, two = (json.loads((tmp_path / name / "history.json").read_text()) for name in ("one", "two"))
    for mine, theirs in zip(one, two, strict=True):
        for name in ("train_loss", "train_top1", "val_loss", "val_top1", "gradient"):
            assert mine[name] == pytest.approx(theirs[name], rel=1e-4), name


@pytest.mark.slow
def test_the_command_line_trains_in_two_processes_and_answers_once(tmp_path: Path) -> None:
    options = ("--model", "lenet5", "--epochs", "1", "--runs", tmp_path, "--name", "two", "--json")
    done = torchrun("-m", "torchstone", "train", "digits", *options)
    assert done.returncode == 0, done.stderr[-3000:]
    answer = json.loads(done.stdout)
    assert sum("epoch   1/1" in line for line in done.stderr.splitlines()) == 1
    (place,) = (tmp_path / "two" / "artifacts").iterdir()
    artifact = load_artifact(place)
    assert artifact.id in json.dumps(answer)
    assert not (place / "checkpoints").exists()
    again = torchrun("-m", "torchstone", "train", "digits", *options)
    assert json.loads(again.stdout) == answer, "what stands is taken"
    assert "epoch" not in again.stderr


def test_norms_are_synchronised_for_a_while(tmp_path: Path) -> None:
    """On GPUs alone; here the modules change places and share what they learn."""
    network = zoo.build("resnet20", classes=3)
    before = dict(network.named_modules())
    with distributed.replaced_norms(network):
        norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        assert norms
        assert all(isinstance(module, nn.SyncBatchNorm) for module in norms)
        for norm in norms:
            assert norm.running_mean is not None
            norm.running_mean += 1
            with torch.no_grad():
                norm.weight.mul_(2)
    assert dict(network.named_modules()) == before
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert torch.all(module.running_mean == 1)
            assert torch.all(module.weight == 2)


def test_a_batch_that_leaves_a_process_one_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a batch of 6 cannot go through 1 processes in 4 parts"):
        images = training.Squares(32, 1)
        loop.fit(training.model(), images, images, Recipe(batch=6, accumulate=4), 1, tmp_path)


@pytest.mark.parametrize("name", sorted(optim.KINDS))
def test_every_optimiser_can_be_spread(name: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's own gives it as many arguments as its optimiser takes; what that holds does not change."""
    made: list[Any] = []

    def spread(groups: Any, kind: type[torch.optim.Optimizer], **options: Any) -> torch.optim.Optimizer:
        made.append(kind(groups, **options))
        return made[0]

    monkeypatch.setattr("torch.distributed.optim.ZeroRedundancyOptimizer", spread)
    alone = optim.optimiser(nn.Linear(3, 2), Recipe(optimiser=name, momentum=0.8))
    found = distributed.sharded(alone, True, Ranks(0, 2), optim.KINDS[name].entries)
    assert found is made[0]
    assert found.defaults == alone.defaults
    assert found.param_groups == alone.param_groups


def test_the_state_of_an_optimiser_has_as_many_entries_as_its_kind_says() -> None:
    for name, kind in optim.KINDS.items():
        layer = nn.Linear(3, 2)
        optimiser = optim.optimiser(layer, Recipe(optimiser=name))  # pyright: ignore[reportArgumentType]
        layer(torch.ones(2, 3)).sum().backward()
        optimiser.step()
        entries = optimiser.state[layer.weight].values()
        assert sum(one.shape == layer.weight.shape for one in entries if isinstance(one, torch.Tensor)) == kind.entries
        assert kind.momentum(Recipe(momentum=0.8)) == (0.8 if name == "sgd" else optim.BETA)


def test_another_number_of_processes_takes_the_recipes_parts(tmp_path: Path) -> None:
    """One process found memory for two images at a time; four of them have a quarter of the batch each."""
    images = training.Squares(32, 1)

    def state(size: int) -> State:
        made = training.model()
        recipe = Recipe(batch=16, precision="f32")
        job = Job(
            model=made, train=images, val=images, recipe=recipe, seed=1, directory=tmp_path, classes=(), outputs=4,
            crop=16, device=torch.device("cpu"), policy_source=None, ranks=Ranks(0, size),
        )  # fmt: skip
        return State(job, ())

    alone = state(1)
    alone.progress.parts = 8
    stored = alone.stored()
    for size, parts in ((1, 8), (4, 1)):
        found = state(size)
        found.restore(stored)
        assert (found.progress.parts, found.progress.processes) == (parts, size)


def test_shares_cover_a_batch_once() -> None:
    batch = np.random.default_rng(0).permutation(50)
    for size in (1, 2, 3, 7):
        shares = [Ranks(rank, size).share(batch) for rank in range(size)]
        assert np.array_equal(np.concatenate(shares), batch)
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
