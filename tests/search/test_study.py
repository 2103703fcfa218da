"""Workers on one study, with trials that only sleep: who runs what, who goes on with what, and what is stopped."""

from __future__ import annotations

import contextlib
import math
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import worker as sleeping

from torchstone.core.errors import ConfigError, DataError, StorageError, TrainingError
from torchstone.search import objectives, results
from torchstone.search.database import shown
from torchstone.search.space import Range
from torchstone.search.study import TICKET, WORKERS, Measured, Plan, Stopped, Study, Turn
from torchstone.search.tickets import ATTEMPTS
from torchstone.search.watch import Watch
from torchstone.train.observe import Epoch

PLAN = sleeping.PLAN
NONE = np.zeros(0, np.float32)
Opened = Callable[..., Study]
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a worker in a process of its own; none outlives the test."""
    started: list[subprocess.Popen[str]] = []

    def one(*arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, sleeping.__file__, *map(str, arguments)]
        started.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield one
    for process in started:
        process.kill()
        with process:
            pass


def ended(process: subprocess.Popen[str]) -> str:
    """What a worker said until its end."""
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return said


def lines(log: Path) -> list[list[str]]:
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


def until(condition: Any, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_workers_that_are_killed_lose_no_trial_and_run_none_twice(database: str, start: Start, tmp_path: Path) -> None:
    log, trials, kills = tmp_path / "log", 14, 8
    draw = random.Random(0)
    workers = [start(database, "killed", trials, 600, log, 0.1) for _ in range(3)]
    for _ in range(kills):
        victim = workers.pop(draw.randrange(3))
        until(lambda pid=str(victim.pid): any(words[0] == pid for words in lines(log)))
        time.sleep(draw.uniform(0, 0.4))
        victim.send_signal(signal.SIGKILL)
        victim.communicate()
        workers.append(start(database, "killed", trials, 600, log, 0.1))
    for process in workers:
        ended(process)
    with Study(database, "killed", PLAN, takeover=600) as study:
        found = study.trials()
    assert [trial.user_attrs[TICKET] for trial in found] == list(range(trials))
    assert sorted(trial.number for trial in found) == list(range(trials))
    assert {trial.state.name for trial in found} <= {"COMPLETE", "PRUNED"}
    assert sum(len(trial.user_attrs[WORKERS]) for trial in found) <= trials + kills
    holders = [(words[0], words[2]) for words in lines(log) if words[1] == "epoch"]
    for number in {number for _, number in holders}:
        turns = [pid for pid, own in holders if own == number]
        assert len(set(turns)) == sum(a != b for a, b in zip([None, *turns], turns, strict=False)), "two at one trial"
    assert any(len(trial.user_attrs[WORKERS]) > 1 for trial in found), "no worker was killed in a trial"


def test_a_silent_worker_leaves_its_trial_to_the_other(database: str, start: Start, tmp_path: Path) -> None:
    log = tmp_path / "log"
    silent = start(database, "silent", 1, 600, log, 6)  # a sign of life at every epoch alone, as seldom as six seconds
    until(lambda: len(lines(log)) >= 1)
    ended(start(database, "silent", 1, 2, log))
    assert "silent for too long" in ended(silent)
    with Study(database, "silent", PLAN, takeover=2) as study:
        [trial] = study.trials()
    assert trial.state.name == "COMPLETE"
    assert len(trial.user_attrs[WORKERS]) == 2
    assert trial.intermediate_values == {
        epoch: pytest.approx(sleeping.top1(turn(trial.params), epoch)) for epoch in range(1, sleeping.EPOCHS + 1)
    }


def turn(values: dict[str, Any]) -> Any:
    return Turn(number=0, values=values, lost=None, reported=None)  # pyright: ignore[reportArgumentType]


def run(turn: Turn) -> Measured:
    for epoch in range(1, sleeping.EPOCHS + 1):
        if turn.reported(epoch, sleeping.top1(turn, epoch)):
            raise Stopped
    return Measured(values=(sleeping.top1(turn, sleeping.EPOCHS),), facts={"seconds": 1.0})


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    """Opens a study in a file, as one more worker would."""
    with contextlib.ExitStack() as studies:

        def one(plan: Plan = PLAN, name: str = "own") -> Study:
            return studies.enter_context(Study(f"sqlite:///{tmp_path / 'study.db'}", name, plan, takeover=600))

        yield one


def test_the_recipe_as_it_is_comes_first_and_what_falls_behind_is_stopped(opened: Opened) -> None:
    study = opened()
    study.work(30, run)
    trials = study.trials()
    assert trials[0].params == PLAN.known
    states = Counter(trial.state.name for trial in trials)
    assert set(states) == {"COMPLETE", "PRUNED"}
    assert min(states.values()) >= 5
    assert all(max(trial.intermediate_values) < sleeping.EPOCHS for trial in trials if trial.state.name == "PRUNED")
    best = max(trial.value for trial in trials if trial.state.name == "COMPLETE" and trial.value is not None)
    assert best > sleeping.top1(turn(dict(PLAN.known)), sleeping.EPOCHS) + 8, "TPE finds the rate of 0.01"
    shares = study.importances(0)
    assert next(iter(shares)) == "lr"
    assert sum(shares.values()) == pytest.approx(1)


def test_the_same_seed_draws_the_same_trials_though_it_was_interrupted(opened: Opened) -> None:
    whole, broken = opened(name="whole"), opened(name="broken")
    whole.work(12, run)

    def interrupted(turn: Turn) -> Measured:
        if turn.number == 5:
            raise KeyboardInterrupt
        return run(turn)

    with pytest.raises(KeyboardInterrupt):
        broken.work(12, interrupted)
    opened(name="broken").work(12, run)
    assert [trial.params for trial in broken.trials()] == [trial.params for trial in whole.trials()]


def test_more_trials_can_be_asked_for_later(opened: Opened) -> None:
    for trials in (2, 5, 3):
        opened().work(trials, run)
    assert len(opened().trials()) == 5


def test_several_objectives_are_not_pruned(opened: Opened) -> None:
    plan = replace(PLAN, objectives=objectives.named(["top1", "size"]))
    study = opened(plan)
    study.work(8, lambda turn: Measured(values=(sleeping.top1(turn, 5), turn.values["lr"]), facts={}) if not
               turn.reported(1, 0.0) else pytest.fail("stopped"))  # fmt: skip
    assert {trial.state.name for trial in study.trials()} == {"COMPLETE"}
    assert next(iter(study.importances(1))) == "lr"


def test_a_trial_that_diverges_is_told_and_the_search_goes_on(opened: Opened) -> None:
    def diverging(turn: Turn) -> Measured:
        if turn.number == 1:
            raise TrainingError("the loss became nan in epoch 1")
        if turn.number == 2:
            raise DataError("no batch can be filled")
        return run(turn)

    study = opened()
    study.work(4, diverging)
    assert [trial.state.name for trial in study.trials()][:3] == ["COMPLETE", "PRUNED", "FAIL"]
    assert study.trials()[1].user_attrs["why"] == "the loss became nan in epoch 1"


def test_what_is_no_number_is_no_value_and_ends_no_search(opened: Opened, tmp_path: Path) -> None:
    def lossless(turn: Turn) -> Measured:
        if turn.number == 1:
            Watch(turn, "val_loss").epoch(
                Epoch(number=1, row={"val_loss": math.nan}, logits=NONE, labels=NONE.astype(np.int64))
            )
        return Measured(values=(math.inf if turn.number == 2 else 0.5,), facts={"val_loss": math.nan})

    plan = replace(PLAN, objectives=objectives.named(["loss"]))
    study = opened(plan)
    study.work(4, lossless)
    assert [trial.state.name for trial in study.trials()] == ["COMPLETE", "PRUNED", "PRUNED", "COMPLETE"]
    whys = [trial.user_attrs.get("why") for trial in study.trials()]
    assert whys == [None, "val_loss was nan after epoch 1", "loss on val is inf", None]
    summary = results.gather(study, "own", "here")
    summary.save(tmp_path / "search.json")
    assert summary.trials[0].facts == {"val_loss": None}


def test_a_study_that_holds_a_nan_is_still_read(opened: Opened, tmp_path: Path) -> None:
    study = opened(replace(PLAN, objectives=objectives.named(["loss"])))

    def run(turn: Turn) -> Measured:
        turn.reported(1, math.nan if turn.number == 1 else 1.0 + turn.values["lr"])
        if turn.number % 2:
            raise Stopped
        return Measured(values=(turn.values["lr"],), facts={})

    study.work(12, run)
    summary = results.gather(study, "own", "here")
    summary.save(tmp_path / "search.json")
    assert summary.trials[1].epochs == {}
    assert next(iter(summary.importances["loss"])) == "lr"


def test_a_search_in_which_nothing_works_ends_with_the_reason(opened: Opened) -> None:
    def refused(turn: Turn) -> Measured:
        raise DataError("no batch can be filled")

    with pytest.raises(DataError, match="no batch can be filled"):
        opened().work(30, refused)
    assert len(opened().trials()) == 3


def test_a_full_disk_is_no_fault_of_the_trial(opened: Opened) -> None:
    def full(turn: Turn) -> Measured:
        raise StorageError("the disk is full")

    with pytest.raises(StorageError):
        opened().work(2, full)
    opened().work(2, run)
    assert [trial.state.name for trial in opened().trials()] == ["COMPLETE", "COMPLETE"]


def test_a_trial_that_kills_its_workers_is_given_up(opened: Opened, tmp_path: Path) -> None:
    study = f"sqlite:///{tmp_path / 'study.db'}"
    code = (
        "import os, signal, sys, worker\nfrom torchstone.search.study import Study\n"
        "def run(turn):\n    if turn.number == 1: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return worker.Measured(values=(1.0,), facts={})\n"
        "with Study(sys.argv[1], 'own', worker.PLAN, takeover=600) as study: study.work(3, run)"
    )
    codes = [
        subprocess.run(
            [sys.executable, "-c", code, study], cwd=Path(sleeping.__file__).parent, capture_output=True, check=False
        ).returncode
        for _ in range(ATTEMPTS + 1)
    ]
    assert codes == [-signal.SIGKILL] * ATTEMPTS + [0]
    assert [trial.state.name for trial in opened().trials()] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert opened().trials()[1].user_attrs["why"] == f"{ATTEMPTS} workers died over it"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"objectives": objectives.named(["loss"])}, "not the same objectives"),
        ({"space": {"lr": Range(low=1e-4, high=1e-2, log=True)}}, "not the same ranges"),
        ({"seed": 1}, "not the same seed"),
        ({"about": {"images": "others"}}, "not the same images"),
    ],
)
def test_another_search_does_not_join(opened: Opened, change: dict[str, Any], what: str) -> None:
    opened()
    with pytest.raises(ConfigError, match=what):
        opened(replace(PLAN, **change))


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        ("nonsense", ConfigError, "'nonsense' is no address of a database"),
        ("mysql://me@host/db", ConfigError, "not in 'mysql'"),
        ("sqlite://", ConfigError, "in memory would be lost"),
        ("postgresql://me:secret@127.0.0.1:1/db", StorageError, r"me:\*\*\*@127.0.0.1:1/db' cannot be used"),
    ],
)
def test_an_address_that_cannot_be_used(url: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        Study(url, "own", PLAN, takeover=60)
    assert "secret" not in str(caught.value)


def test_a_password_is_not_shown() -> None:
    assert re.search("secret", shown("postgresql://me:secret@host/db")) is None
