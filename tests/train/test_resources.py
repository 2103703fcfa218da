from __future__ import annotations

import errno
import gc
import math
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tracked import Kill, fitted

from torchstone.core import tables
from torchstone.core.machine import usable_cores
from torchstone.report import resources as figures
from torchstone.train import resources
from torchstone.train.checkpoint import Store
from torchstone.train.observe import Observer, Step
from torchstone.train.resources import COLUMNS, Resources


class Busy(Observer):
    """Keeps one core and 160 MB for a while after each step."""

    def step(self, step: Step) -> None:
        held = np.ones(20_000_000)
        until = time.process_time() + 0.1
        while time.process_time() < until:
            held[:1000] += 1


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "INTERVAL", 0.02)
    monkeypatch.setattr(resources, "COST", 1.0)


@pytest.mark.usefixtures("often")
def test_a_training_leaves_what_it_used(tmp_path: Path) -> None:
    _, alone = fitted(tmp_path / "alone")
    before = threading.active_count()
    _, weights = fitted(tmp_path / "checkpoints", Resources(tmp_path / "resources.parquet"), Busy())
    assert all(torch.equal(weights[name], value) for name, value in alone.items())
    table, header = tables.read(tmp_path / "resources.parquet")
    assert tuple(table.columns) == COLUMNS
    assert len(table) >= 5
    seconds = table["seconds"].to_list()
    assert seconds == sorted(seconds)
    used = sum(cores * span for cores, span in zip(table["cores"], np.diff([0.0, *seconds]), strict=True))
    assert used >= 0.9, "ten steps of 0.1 seconds of one core"
    # A process's time is counted in hundredths of a second, so that one short look may show more than there is.
    assert used / seconds[-1] <= usable_cores() + 0.5
    memory = table["memory_gb"].to_list()
    assert max(memory) - min(memory) > 0.1
    assert 0 < max(memory) <= header["memory_gb"]
    assert header["cores"] == usable_cores()
    assert table["gpu_percent"].null_count() in (0, len(table))
    for _ in range(100):
        if threading.active_count() <= before:
            break
        time.sleep(0.05)
    assert threading.active_count() <= before, "the thread is still there"


@pytest.mark.usefixtures("often")
def test_a_training_that_goes_on_keeps_what_was_seen_before(tmp_path: Path) -> None:
    path = tmp_path / "resources.parquet"
    with pytest.raises(KeyboardInterrupt):
        fitted(tmp_path / "checkpoints", Resources(path), Busy(), Kill(6))
    found = Store(tmp_path / "checkpoints").newest()
    assert found
    first = found[1]["observers"]["resources"]["rows"][:, 0].tolist()
    assert first == tables.read(path)[0]["seconds"].to_list()[: len(first)]
    fitted(tmp_path / "checkpoints", Resources(path), Busy())
    seconds = tables.read(path)[0]["seconds"].to_list()
    assert len(seconds) > len(first) > 3
    assert seconds[: len(first)] == first
    assert seconds == sorted(seconds)


def test_a_full_disk_ends_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, *_: Any) -> None:
        if path.stem == "resources":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(resources.tables, "write", full)
    progress, _ = fitted(tmp_path / "checkpoints", Resources(tmp_path / "resources.parquet"))
    assert progress.epoch == 2
    assert capsys.readouterr().err.count("what the training uses is not kept any more (OSError") == 1


def test_a_machine_that_cannot_be_looked_at_ends_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    progress, _ = fitted(tmp_path / "checkpoints", Resources(tmp_path / "resources.parquet"))
    assert progress.epoch == 2
    assert capsys.readouterr().err.count("warning: what the training uses") == 1


def test_a_training_that_breaks_off_keeps_what_was_seen(tmp_path: Path) -> None:
    watched = Resources(tmp_path / "resources.parquet")
    with pytest.raises(KeyboardInterrupt):
        fitted(tmp_path / "checkpoints", watched, Kill(3))
    assert watched._over.is_set()
    assert len(tables.read(tmp_path / "resources.parquet")[0]) == len(watched._rows)


def test_nobody_watches_a_training_that_is_forgotten(tmp_path: Path, often: None) -> None:
    def broken_off() -> None:
        with pytest.raises(KeyboardInterrupt):
            fitted(tmp_path / "checkpoints", Resources(tmp_path / "resources.parquet"), Kill(1))

    broken_off()
    until = time.monotonic() + 20
    while time.monotonic() < until and any(one.name == "resources" for one in threading.enumerate()):
        gc.collect()
        time.sleep(0.05)
    assert not any(one.name == "resources" for one in threading.enumerate())


def test_a_long_training_is_looked_at_less_often(tmp_path: Path) -> None:
    watched = Resources(tmp_path / "resources.parquet")
    watched._look = lambda: [1.0, 2.0, math.nan, math.nan, math.nan, math.nan]
    pauses = [watched.look() for _ in range(resources.ROWS + 200)]
    assert pauses[0] == resources.INTERVAL
    assert pauses[-1] == 2 * resources.INTERVAL
    state = watched.state()
    assert len(state["rows"]) == resources.ROWS // 2 + 200
    assert (state["rows"][:, 1] == 1.0).all()
    assert state["rows"][:, 3].isnan().all()


def test_looking_takes_a_hundredth_of_the_time_at_most(tmp_path: Path) -> None:
    watched = Resources(tmp_path / "resources.parquet")

    def slow() -> list[float]:
        time.sleep(0.05)
        return [1.0, 2.0, math.nan, math.nan, math.nan, math.nan]

    watched._look = slow
    assert watched.look() >= 5.0


def test_halved_rows_leave_out_what_is_unknown() -> None:
    rows = np.array([[0, 2, math.nan], [2, math.nan, math.nan], [9, 9, 9]], np.float32)
    assert np.array_equal(resources._halved(rows), np.array([[1, 2, math.nan]], np.float32), equal_nan=True)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("97, 10240, 61\n", (97.0, 10.73741824, 61.0)),
        ("0, 5, [N/A]\n", (0.0, 0.00524288, math.nan)),
        ("No devices were found\n", (math.nan,) * 3),
    ],
)
def test_lines_of_nvidia_smi(line: str, expected: tuple[float, ...]) -> None:
    assert resources.gpu_values(line) == pytest.approx(expected, nan_ok=True)


def test_the_figures_show_what_is_known(tmp_path: Path) -> None:
    columns: dict[str, Any] = {name: [None] * 40 for name in COLUMNS}
    columns |= {"seconds": [10.0 * at for at in range(40)], "cores": [1.5] * 20 + [2.0] * 20, "memory_gb": [3.2] * 40}
    schema: dict[str, Any] = dict.fromkeys(COLUMNS, float)
    tables.write(tmp_path / "r.parquet", tables.frame(columns, schema), {"cores": 2, "memory_gb": 64.0})
    cores, memory = figures.panels(tmp_path / "r.parquet", "training0")
    assert (cores.title, memory.title) == ("Cores busy", "Memory, GB")
    assert cores.summary == "median 2, at most 2 of 2 (dashed)"
    assert memory.summary == "median 3.2, at most 3.2 of 64"
    assert "minutes" in cores.figure
    assert cores.figure.startswith("<svg")
    assert 'id="training0-cores-' in cores.figure
    assert figures.panels(tmp_path / "missing.parquet", "x") == []


def test_too_few_looks_are_no_figure(tmp_path: Path) -> None:
    columns = {name: [1.0] for name in COLUMNS}
    tables.write(tmp_path / "r.parquet", tables.frame(columns), {})
    assert figures.panels(tmp_path / "r.parquet", "x") == []
