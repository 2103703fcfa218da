"""Searches over chains as a user starts them: a small network trained on scikit-learn's digits, built and timed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from command_line import torchstone
from torchstone.config import Settings
from torchstone.core import files, tables
from torchstone.core.errors import ConfigError
from torchstone.core.values import Artifact, Candidate
from torchstone.evaluate import predict, timing
from torchstone.judge import speed
from torchstone.judge.select import Screened
from torchstone.report import search_page
from torchstone.search.results import PAGE, SUMMARY, TABLE
from torchstone.stages import clock
from torchstone.stages import search_chains as searching
from torchstone.stages.read import Data
from torchstone.stages.search_chains import FoundChains, search_chains

pytestmark = pytest.mark.slow

SPACE = """
shape = ["none", "prune"]
runtime = "onnxruntime"

[prune]
ratio = [0.25, 0.5]
importance = "magnitude"
scope = "uniform"

[finetune]
epochs = 1
lr = {low = 1e-4, high = 1e-3, log = true}

[int8]
images = 64
calibration = "minmax"
"""


@pytest.fixture(scope="module")
def run(data: Data, trained: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained run in a folder of its own, with a space beside it."""
    place = tmp_path_factory.mktemp("chains")
    (place / "space.toml").write_text(SPACE)
    artifact = place / "runs" / "digits" / "artifacts" / trained.directory.name
    shutil.copytree(trained.directory, artifact)
    shutil.copytree(data.run.data, place / "runs" / "digits" / "data")
    return place / "runs" / "digits"


def asked(run: Path, **more: Any) -> Settings:
    space = run.parent.parent / "space.toml"
    given = {"data": str(run), "name": "one", "space": space, "trials": 6, "max_drop": 20.0, **more}
    return Settings(**given)


@pytest.fixture(scope="module")
def found(run: Path) -> FoundChains:
    return search_chains(asked(run, objective=("drop", "speed", "size")))


def ratios_of(found: FoundChains, baseline: str) -> list[float]:
    """The ratios against the baseline, of the timings that the sessions left."""
    tables = [timing.load_timings(path) for path in (found.directory / "evidence").glob("*/timings.parquet")]
    measured = [speed.quartets(table, "screening", baseline) for table in tables]
    return [one.ratio for one in measured if len(one)]


def test_trials_are_chains_that_were_built_and_measured(found: FoundChains, run: Path, baseline: Candidate) -> None:
    trials = found.summary.trials
    assert [trial.name for trial in trials[:2]] == ["onnx", "int8=64:calibration=minmax@onnxruntime"]
    assert len({trial.name for trial in trials}) == len(trials) == 6, "no chain is drawn twice while there are others"
    assert {trial.state for trial in trials} <= {"complete", "stopped"}
    timed = ratios_of(found, baseline.id)
    for trial in trials:
        if not trial.values:
            assert "meets the budget" in (trial.why or "")
            continue
        drop, ratio, size = trial.values
        assert (run / "artifacts" / trial.facts["artifact"] / "artifact.json").exists()
        assert size == pytest.approx(Artifact.load(run / "artifacts" / trial.facts["artifact"] / "artifact.json")
                                     .model_copy(update={"directory": run / "artifacts" / trial.facts["artifact"]})
                                     .size_mb)  # fmt: skip
        assert -20 < drop < 100
        assert ratio > 0
        assert trial.facts["machine"] == found.machines[0]
    ratios = [trial.values[1] for trial in trials if trial.values]
    assert set(ratios) & set(timed), "what is the sketch of a later trial may have been timed again since"
    exported = trials[0]
    assert exported.values
    assert exported.values[0] == 0, "an export answers as the model does"


def test_what_it_leaves_behind(found: FoundChains, run: Path) -> None:
    table, _ = tables.read(found.directory / TABLE)
    assert table["name"].to_list() == [trial.name for trial in found.summary.trials]
    assert found.directory == run / "studies" / "one"
    assert (found.directory / SUMMARY).exists()
    assert not list(run.rglob("predictions-test.parquet")), "choices are made on val"
    assert not (run / "evidence").exists(), "what a verdict stands on is not touched"
    assert list((found.directory / "evidence").glob("*/timings.parquet"))
    page = (found.directory / PAGE).read_text()
    for trial in found.summary.trials:
        assert page.count(f">{trial.name}<") == (2 if trial.number in found.summary.best else 1)
    assert 'id="trade-wide' in page
    assert "torchstone judge" in page


def test_the_shortlist_is_for_the_judge(found: FoundChains) -> None:
    assert 1 <= len(found.shortlist) <= 3
    names = {trial.name for trial in found.summary.trials if trial.values}
    assert set(found.shortlist) <= names
    assert found.command is not None
    assert found.command.startswith(f"torchstone judge {found.directory.parent.parent} {found.shortlist[0]} ")
    assert found.command.endswith("--max-drop 20.0")


def test_the_same_search_again_measures_nothing(found: FoundChains, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: object) -> None:
        raise AssertionError("nothing is measured again")

    monkeypatch.setattr(clock, "controlled", never)
    monkeypatch.setattr(predict, "answer", never)
    again = search_chains(asked(run, objective=("drop", "speed", "size")))
    assert again.summary == found.summary
    assert again.shortlist == found.shortlist


def bench(data: Data, baseline: Candidate, facts: dict[str, Any], names: tuple[str, ...]) -> Any:
    """A worker that knows of one complete trial."""
    trial = SimpleNamespace(state=SimpleNamespace(name="COMPLETE"), user_attrs={"measured": facts, "ticket": 3},
                            values=[1.0, 2.0])  # fmt: skip
    plan = SimpleNamespace(objectives=[SimpleNamespace(name=name) for name in names])
    study: Any = SimpleNamespace(trials=lambda: [trial], plan=plan, title_of=lambda _: "int8@onnxruntime")
    return searching._Bench(data, baseline, Settings(data="digits").budget, study)


def shape(ratio: float, size: float, noise: str | None) -> Any:
    seen: dict[str, Any] = {
        "candidate": SimpleNamespace(artifact=SimpleNamespace(size_mb=size)),
        "speed": SimpleNamespace(ratio=ratio, upper=1.1 * ratio),
        "latency": SimpleNamespace(median_ms=1.0, lower_ms=0.9),
        "accuracy": SimpleNamespace(difference=0.0, lower=0.0),
    }
    return Screened(**seen, risk=0.0, noise=noise)


@pytest.mark.parametrize(
    ("ratio", "size", "objectives", "changes", "tried"),
    [
        (3.0, 1.0, ("drop", "speed"), {}, False),
        (3.7, 1.0, ("drop", "speed"), {}, True),  # its upper bound is 4.07
        (3.0, 1.0, ("drop", "speed", "size"), {}, True),  # it is smaller
        (3.0, 3.0, ("drop", "speed", "size"), {}, False),
        (9.0, 3.0, ("drop", "size"), {}, False),
        (3.0, 3.0, ("drop",), {}, True),
        (3.0, 3.0, ("drop", "speed"), {"meets_the_budget": False}, True),
        (3.0, 3.0, ("drop", "speed"), {"machine": "another"}, True),
        (3.0, 3.0, ("drop", "speed"), {"noise": "too noisy"}, True),
        (3.0, 3.0, ("drop", "speed"), {"speed_at_least": 3.2}, True),
    ],
)
def test_a_shape_that_cannot_win_is_not_trained(
    ratio: float, size: float, objectives: tuple[str, ...], changes: dict[str, Any], tried: bool,
    data: Data, baseline: Candidate,
) -> None:  # fmt: skip
    here = searching.socket.gethostname()
    known = {
        "speed": 4.2, "speed_at_least": 4.0, "noise": None, "size": 2.0, "meets_the_budget": True, "machine": here,
        **changes,
    }  # fmt: skip
    worker = bench(data, baseline, known, objectives)
    why = worker._cannot_win(shape(ratio, size, None))
    assert (why is None) is tried
    assert worker._cannot_win(shape(ratio, size, "too noisy")) is None
    assert tried or "'int8@onnxruntime' is 4.2× as fast" in (why or "")


def test_what_was_measured_here_is_not_measured_again(data: Data, baseline: Candidate) -> None:
    here = searching.socket.gethostname()
    mine = bench(data, baseline, {"machine": here}, ("drop", "speed"))
    theirs = bench(data, baseline, {"machine": "another"}, ("drop", "speed"))
    assert mine._measured("int8@onnxruntime").values == (1.0, 2.0)
    assert mine._measured("int8@onnxruntime").facts["measured_by"] == 3
    assert mine._measured("onnx") is None
    assert theirs._measured("int8@onnxruntime") is None


def test_what_cannot_be_built_is_stopped_with_the_reason(run: Path) -> None:
    (run.parent.parent / "odd.toml").write_text(
        'shape = "resolution"\ntraining = "none"\narithmetic = "none"\nruntime = "onnxruntime"\n'
        "[resolution]\npixels = [24, 28]\nepochs = 0\n"
    )
    found = search_chains(asked(run, name="odd", trials=2, space=run.parent.parent / "odd.toml"))
    assert {trial.state for trial in found.summary.trials} == {"stopped"}
    assert all("does not take images of" in (trial.why or "") for trial in found.summary.trials)
    assert found.command is None
    assert "No trial came to its end" in found.page.read_text()


def test_timings_of_several_machines_are_not_mixed_in_silence(found: FoundChains, tmp_path: Path) -> None:
    summary = files.read_json(found.directory / SUMMARY)
    done = [trial for trial in summary["trials"] if trial["values"]]
    done[0]["facts"]["machine"] = "elsewhere"
    files.write_json(tmp_path / SUMMARY, summary)
    page = search_page.write(tmp_path).read_text()
    assert "Timed on 2 machines, whose marks differ" in page
    assert "elsewhere (" in page
    assert "Timed on 2 machines" not in (found.directory / PAGE).read_text()


def test_a_noisy_trial_is_marked_and_few_trials_are_no_more_than_a_hint(found: FoundChains, tmp_path: Path) -> None:
    summary = files.read_json(found.directory / SUMMARY)
    done = [trial for trial in summary["trials"] if trial["values"]]
    hint = f"So few trials ({len(done)}) give no more than a hint"
    for trial in done:
        trial["facts"]["noise"] = None
    for given in summary["objectives"]:
        summary["importances"][given["name"]] = {"arithmetic": 1.0}
    files.write_json(tmp_path / SUMMARY, summary)
    page = search_page.write(tmp_path).read_text()
    assert '<span class="tag">noisy</span>' not in page
    assert hint in page
    done[0]["facts"]["noise"] = "too noisy"
    summary["trials"] += [{**done[0], "number": 1000 + number} for number in range(search_page.ENOUGH)]
    files.write_json(tmp_path / SUMMARY, summary)
    page = search_page.write(tmp_path).read_text()
    assert page.count('<span class="tag">noisy</span>') == 1 + search_page.ENOUGH
    assert "no more than a hint" not in page


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "lenet5"}, "'model' says nothing to a search over chains"),
        ({"chain": ("onnx",)}, "'chain' says nothing to a search over chains"),
        ({"objective": ("top1",)}, "unknown objective 'top1'"),
    ],
)
def test_what_a_search_over_chains_does_not_heed_is_refused(changes: dict[str, Any], message: str, run: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        search_chains(asked(run, **changes))


def test_flags_of_chains_need_the_switch(tmp_path: Path) -> None:
    done = torchstone("search", "digits", "--max-drop", "1", cwd=tmp_path)
    assert done.returncode == 2
    assert "--max-drop is about chains" in done.stderr


def test_another_budget_is_another_search(found: FoundChains, run: Path) -> None:
    with pytest.raises(ConfigError, match="not the same budget"):
        search_chains(asked(run, objective=("drop", "speed", "size"), max_drop=1.0))


def worker(run: Path, said: Path) -> subprocess.Popen[bytes]:
    """One more worker on the search 'shared', whose lines go to a file."""
    command = [sys.executable, "-m", "torchstone", "search", str(run), "--compress", "--name", "shared", "--trials",
               "4", "--space", str(run.parent.parent / "space.toml"), "--max-drop", "20", "--json"]  # fmt: skip
    with said.open("wb") as file:
        return subprocess.Popen(command, stdout=file, stderr=file)


@pytest.mark.slow
def test_two_workers_of_which_one_is_killed(run: Path, tmp_path: Path) -> None:
    first = worker(run, tmp_path / "1")
    second = None
    try:
        end = time.monotonic() + 280
        while "trial 2: " not in (tmp_path / "1").read_text():
            assert first.poll() is None and time.monotonic() < end, (tmp_path / "1").read_text()
            time.sleep(0.02)
        second = worker(run, tmp_path / "2")
        time.sleep(0.3)
        os.kill(first.pid, signal.SIGKILL)
        assert second.wait(timeout=600) == 0, (tmp_path / "2").read_text()
    finally:
        for process in filter(None, (first, second)):
            process.kill()
            process.wait()
    said = (tmp_path / "2").read_text()
    trials = json.loads(said[re.search(r"^\{$", said, flags=re.MULTILINE).start() :])["trials"]  # pyright: ignore
    assert [trial["number"] for trial in trials] == [0, 1, 2, 3]
    assert {trial["state"] for trial in trials} <= {"complete", "stopped"}
    assert len(trials[2]["workers"]) == 2, "it was taken over"
    assert not list((run / "artifacts").glob("finetune*.partial")), "what it had begun is finished"
