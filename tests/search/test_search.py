"""Searches as a user starts them: real trainings on scikit-learn's digits."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest

from command_line import torchstone
from torchstone.config import Settings
from torchstone.core import tables
from torchstone.core.errors import ConfigError
from torchstone.core.run import Run
from torchstone.search.objectives import OBJECTIVES, named
from torchstone.search.results import BEST, PAGE, SUMMARY, TABLE
from torchstone.stages import search as searching
from torchstone.stages.search import Found, search
from torchstone.train import recipes, stage
from torchstone.train.recipe import Metric
from torchstone.train.stage import TrainRequest

RECIPE = """
base = "quick"
epochs = 6
patience = 6
label_smoothing = 0.0

[search]
lr = {low = 1e-4, high = 3e-2, log = true}
optimiser = ["sgd", "adamw"]
"""


def worker(place: Path, said: Path, *more: str) -> subprocess.Popen[bytes]:
    """One more worker on the search 'shared', on one core, whose lines go to a file."""
    command = [sys.executable, "-m", "torchstone", "search", "digits", "--name", "shared", "--model", "lenet5", *more]
    with said.open("wb") as file:
        process = subprocess.Popen([*command, "--recipe", "recipe.toml", "--json"], cwd=place, stdout=file, stderr=file)
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(process.pid, {cores[process.pid % len(cores)]})
    return process


def until(condition: Any, process: subprocess.Popen[bytes], said: Path, seconds: float = 280) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, said.read_text()
        assert time.monotonic() < end, said.read_text()
        time.sleep(0.01)


@pytest.mark.slow
def test_two_workers_on_one_server_of_which_one_is_killed(postgres: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    options = ("--trials", "5", "--storage", postgres)
    first, second = worker(tmp_path, tmp_path / "1", *options), worker(tmp_path, tmp_path / "2", *options)
    try:
        until(lambda: (tmp_path / "1").read_text().count("epoch   2/6"), first, tmp_path / "1")
        os.kill(first.pid, signal.SIGKILL)
        assert second.wait(timeout=600) == 0, (tmp_path / "2").read_text()
    finally:
        for process in (first, second):
            process.kill()
            process.wait()
    said = (tmp_path / "2").read_text()
    assert "goes on: lr" in said
    assert re.search("training goes on (after epoch [1-6]|in epoch [2-6])", said), "not from its beginning"
    answer = json.loads(said[said.index("\n{\n") :])
    trials = answer["trials"]
    assert [trial["number"] for trial in trials] == [0, 1, 2, 3, 4]
    assert {trial["state"] for trial in trials} <= {"complete", "stopped"}
    assert sorted(len(trial["workers"]) for trial in trials) == [1, 1, 1, 1, 2], "one was taken over, none ran twice"
    assert len({worker for trial in trials for worker in trial["workers"]}) == 2
    assert all(list(trial["epochs"]) == list("123456") for trial in trials if trial["state"] == "complete")

    search_again = ("search", "digits", "--name", "shared", "--model", "lenet5", "--recipe", "recipe.toml", "--json")
    again = torchstone(*search_again, *options, cwd=tmp_path)
    assert json.loads(again.stdout)["trials"] == trials, "what is finished is not run again"
    [best] = answer["recipes"]
    done = torchstone("train", "digits", "--model", "lenet5", "--recipe", best, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["val_top1"] == pytest.approx(trials[answer["best"][0]]["values"][0])


@pytest.fixture(scope="module")
def found(short_sessions: None, tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Three trials, by accuracy and by what the network costs."""
    place = tmp_path_factory.mktemp("search")
    (place / "recipe.toml").write_text(f'{RECIPE}model = ["lenet5", "resnet20"]\n'.replace("epochs = 6", "epochs = 1"))
    return search(
        Settings(
            data="digits",
            name="both",
            runs=place / "runs",
            model=None,
            recipe=str(place / "recipe.toml"),
            objective=("top1", "params", "latency"),
            trials=3,
        )
    )


def test_a_search_by_accuracy_and_cost(found: Found) -> None:
    done = {trial.number: trial for trial in found.summary.trials}
    assert {trial.state for trial in done.values()} == {"complete"}
    for trial in done.values():
        assert trial.values is not None
        assert trial.values[0] == pytest.approx(trial.facts["val_top1"])
        assert trial.values[1] == {"lenet5": 62_006, "resnet20": 272_474}[trial.options["model"]]
        assert 0.01 < trial.values[2] < 100
        assert (found.directory / "artifacts" / trial.facts["artifact"] / "artifact.json").exists()
    assert set(found.summary.best) <= set(done)


def test_what_a_search_leaves_behind(found: Found) -> None:
    table, _ = tables.read(found.directory / TABLE)
    assert table["trial"].to_list() == [0, 1, 2]
    assert set(table["option_model"]) <= {"lenet5", "resnet20"}
    assert (found.directory / SUMMARY).exists()
    assert len(found.recipes) == len(found.summary.best)
    assert found.recipes[0].name == (BEST if len(found.summary.best) == 1 else f"best-{found.summary.best[0]}.toml")
    for number, path in zip(found.summary.best, found.recipes, strict=True):
        given = found.summary.trials[number].options
        head, command, *_ = path.read_text().splitlines()
        assert f"trial {number} of both" in head
        assert f"torchstone train digits --model {given['model']} --recipe {path}" in command
        recipe = recipes.by_name(str(path))
        assert (recipe.lr, recipe.optimiser, recipe.epochs) == (given["lr"], given["optimiser"], 1)


def test_the_page_shows_every_trial(found: Found) -> None:
    page = (found.directory / PAGE).read_text()
    assert page.count("<tr class=") == 3
    assert "http" not in page.replace("http-equiv", "")
    assert "parameters" in page
    assert 'id="trade-wide' in page


def test_workers_with_equal_recipes_measure_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """They would export the same artifact to the same place."""
    inside, most = [], []

    def cost(made: Any, data: Any) -> float:
        inside.append(made)
        most.append(len(inside))
        time.sleep(0.3)
        inside.pop()
        return 1.0

    monkeypatch.setattr(stage, "train", lambda *_, **__: SimpleNamespace(directory=tmp_path))
    monkeypatch.setitem(searching.COSTS, "latency", cost)
    monkeypatch.setattr(searching, "_best_epoch", lambda _: ({"epoch": 1, "val_top1": 50.0}, 1.0))
    request = TrainRequest(model="lenet5", recipe=recipes.quick(), seed=0)
    data: Any = SimpleNamespace(run=Run(tmp_path), catalog=None, split=None)
    plan: Any = SimpleNamespace(objectives=named(["top1", "latency"]), prunes=False)
    turn: Any = SimpleNamespace(number=0, values={}, lost=None, reported=None)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: searching._train(turn, request, data, plan, ()), range(2)))
    assert [one.values for one in found] == [(50.0, 1.0)] * 2
    assert most == [1, 1]


def test_every_objective_can_be_measured() -> None:
    assert {one.name for one in OBJECTIVES.values() if one.metric is None} == set(searching.COSTS)
    assert {one.metric for one in OBJECTIVES.values() if one.metric} == set(get_args(Metric))


def test_a_flag_holds_an_option_fast(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    own: dict[str, Any] = {
        "data": "digits", "runs": tmp_path / "runs", "model": "lenet5", "recipe": str(tmp_path / "recipe.toml"),
    }  # fmt: skip
    with pytest.raises(ConfigError, match="nothing is left to search: lr, optimiser are given"):
        search(Settings(**own, lr=1e-3, set={"optimiser": "sgd"}))


def test_below_torchrun_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="once for each worker"):
        search(Settings(data="digits"))
