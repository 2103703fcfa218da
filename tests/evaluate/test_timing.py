"""A timing session is paired, balanced, complete, and leaves no process behind, however it ends."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchstone.core.errors import ArtifactError, ConfigError
from torchstone.core.machine import usable_cores
from torchstone.core.run import Run
from torchstone.core.values import Candidate
from torchstone.evaluate import pool, timing
from torchstone.evaluate.timing import Comparison

QUARTETS = 3


@pytest.fixture
def seats(monkeypatch: pytest.MonkeyPatch) -> list[pool.Worker]:
    """The workers that are made during the test."""
    made: list[pool.Worker] = []
    real = pool.Worker.__init__

    def remember(self: pool.Worker, *args: Any, **kwargs: Any) -> None:
        made.append(self)
        real(self, *args, **kwargs)

    monkeypatch.setattr(pool.Worker, "__init__", remember)
    return made


def ended(worker: pool.Worker) -> bool:
    return worker.process.returncode is not None and not Path(f"/proc/{worker.process.pid}").exists()


@pytest.fixture(scope="module")
def measured(short_sessions: None, candidates: dict[str, Candidate], pixels: np.ndarray) -> timing.Session:
    """Three candidates, two of them against the baseline and one against the other, with the control."""
    baseline, fast = candidates["onnx@onnxruntime"], candidates["openvino@openvino"]
    comparisons = [
        Comparison(fast, baseline),
        Comparison(candidates["onnx@openvino"], baseline),
        Comparison(fast, candidates["onnx@openvino"]),
    ]
    return timing.session(
        comparisons, control=baseline, quartets=QUARTETS, phase="screening", pixels=pixels, throughput=True
    )


def test_every_quartet_has_two_slots_a_side_in_its_order(measured: timing.Session) -> None:
    letters = {"candidate": "A", "rival": "B"}
    seen = Counter()
    for candidate_id, table in measured.tables.items():
        paired = table.filter(table["rival"].is_not_null())
        for (rival, quartet), rows in paired.group_by(["rival", "quartet"]):
            seen[candidate_id, rival] += 1
            rows = rows.sort("slot")  # noqa: PLW2901
            assert rows["slot"].to_list() == [0, 1, 2, 3]
            assert rows["order"].n_unique() == 1
            assert "".join(letters[side] for side in rows["side"]) == rows["order"][0]
            assert rows["at"].is_sorted()
            assert 0 <= quartet < QUARTETS
    assert len(seen) == 4, "three comparisons and the control"
    assert set(seen.values()) == {QUARTETS}


def test_a_slot_is_as_long_as_it_must_be(measured: timing.Session) -> None:
    for table in measured.tables.values():
        assert (table["ms"] > 0).all()
        paired = table.filter(table["rival"].is_not_null())
        assert (paired["calls"] >= timing.SLOT_CALLS).all()
        assert set(paired["batch"]) == {1}


def test_the_table_has_the_agreed_columns(measured: timing.Session) -> None:
    for table in measured.tables.values():
        assert tuple(table.columns) == timing.COLUMNS
        kinds = {name: str(kind) for name, kind in table.schema.items()}
        assert {kinds[name] for name in ("quartet", "slot", "batch", "calls")} == {"Int32"}
        assert {kinds[name] for name in ("phase", "session", "rival", "order", "side")} == {"String"}
        assert {kinds[name] for name in ("ms", "at")} == {"Float64"}
        assert set(table["session"]) == {measured.id}
        assert set(table["phase"]) == {"screening"}


def test_the_control_is_the_baseline_against_itself(measured: timing.Session, candidates: dict[str, Candidate]) -> None:
    baseline = candidates["onnx@onnxruntime"].id
    table = measured.tables[baseline]
    assert set(table["rival"].drop_nulls()) == {baseline}
    assert Counter(table.filter(table["rival"] == baseline)["side"]) == {"candidate": 6, "rival": 6}


def test_the_quartets_of_all_comparisons_are_interleaved(measured: timing.Session) -> None:
    rows = sorted(
        (at, quartet, candidate_id, rival)
        for candidate_id, table in measured.tables.items()
        for at, quartet, rival in table.select("at", "quartet", "rival").iter_rows()
        if rival is not None
    )
    quartets = [quartet for _, quartet, _, _ in rows]
    assert quartets == sorted(quartets), "a round is finished before the next begins"


def test_throughput_is_measured_alone_with_large_batches(measured: timing.Session) -> None:
    assert len(measured.tables) == 3
    for table in measured.tables.values():
        alone = table.filter(table["rival"].is_null())
        assert alone["batch"].to_list() == [timing.THROUGHPUT_BATCH] * 2
        assert alone["order"].null_count() == 2


def test_the_header_tells_conditions_and_costs(measured: timing.Session) -> None:
    header = json.loads(json.dumps(measured.header))
    assert header["session"] == measured.id
    assert header["quartets"] == QUARTETS
    assert header["packages"]["openvino"]
    assert header["cpu"]
    assert all(cores == sorted(os.sched_getaffinity(0))[-1:] for cores in header["affinity"].values())
    assert header["opening_seconds"] > 0
    assert 0 < header["computing_seconds"] <= header["measuring_seconds"]


def test_every_runtime_can_be_timed_with_its_options(
    candidates: dict[str, Candidate], pixels: np.ndarray, short_sessions: None
) -> None:
    threads = min(2, usable_cores())
    baseline, *others = (
        one.model_copy(update={"options": one.options.model_copy(update={"threads": threads})})
        for one in candidates.values()
    )
    pairs = [Comparison(one, baseline) for one in others]
    session = timing.session(pairs, control=None, quartets=1, batch=5, phase="screening", pixels=pixels)
    assert set(session.tables) == {one.id for one in others}
    assert all(set(table["batch"]) == {5} for table in session.tables.values())
    assert {len(cores) for cores in session.header["affinity"].values()} == {threads}


def test_a_repeated_phase_replaces_the_old_one_and_keeps_the_other(
    measured: timing.Session, candidates: dict[str, Candidate], pixels: np.ndarray, short_sessions: None, tmp_path: Path
) -> None:
    run = Run(tmp_path)
    fast, baseline = candidates["openvino@openvino"], candidates["onnx@onnxruntime"]
    judged = timing.session([Comparison(fast, baseline)], control=None, quartets=2, phase="judged", pixels=pixels)
    timing.store(run, measured)
    timing.store(run, judged)
    timing.store(run, measured)
    table = timing.load_timings(run.timings(fast))
    assert Counter(table["phase"]) == {"screening": 2 * 4 * QUARTETS + 2, "judged": 8}
    headers = timing.load_headers(run.timings(fast))
    assert {phase: header["session"] for phase, header in headers.items()} == {
        "screening": measured.id,
        "judged": judged.id,
    }


def test_a_table_of_something_else_is_refused(tmp_path: Path) -> None:
    from torchstone.core import tables

    tables.write(tmp_path / "timings.parquet", tables.frame({"ms": [1.0]}))
    with pytest.raises(ArtifactError, match="does not hold timings"):
        timing.load_timings(tmp_path / "timings.parquet")


@settings(deadline=None)
@given(comparisons=st.integers(1, 9), quartets=st.integers(1, 40), name=st.text(min_size=1))
def test_a_schedule_is_complete_and_drawn_from_its_session(comparisons: int, quartets: int, name: str) -> None:
    plan = timing.schedule(name, comparisons, quartets)
    assert plan == timing.schedule(name, comparisons, quartets)
    assert Counter((turn.quartet, turn.comparison) for turn in plan) == {
        (quartet, comparison): 1 for quartet in range(quartets) for comparison in range(comparisons)
    }
    assert [turn.quartet for turn in plan] == sorted(turn.quartet for turn in plan)


def test_both_orders_are_drawn_and_sessions_differ() -> None:
    plans = [timing.schedule(f"session {number}", 4, 16) for number in range(50)]
    orders = Counter(turn.order for plan in plans for turn in plan)
    assert set(orders) == {"ABBA", "BAAB"}
    assert abs(orders["ABBA"] - 1600) < 200  # seven standard deviations of 3,200 fair draws
    assert len({tuple(plan) for plan in plans}) == 50
    firsts = Counter(plan[0].comparison for plan in plans)
    assert set(firsts) == {0, 1, 2, 3}


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGABRT])
def test_a_worker_that_dies_is_named_and_the_others_end(
    how: signal.Signals,
    candidates: dict[str, Candidate],
    pixels: np.ndarray,
    short_sessions: None,
    seats: list[pool.Worker],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fast, baseline = candidates["openvino@openvino"], candidates["onnx@onnxruntime"]

    def kill_at_the_third(turns: Iterable[Any], description: str, total: int) -> Iterator[Any]:
        for number, turn in enumerate(turns):
            if number == 2 and "quartets" in description:
                next(seat for seat in seats if seat.candidate is fast).process.send_signal(how)
            yield turn

    monkeypatch.setattr(timing, "track", kill_at_the_third)
    with pytest.raises(ArtifactError, match=f"worker of 'openvino@openvino' was killed by {how.name}"):
        timing.session([Comparison(fast, baseline)], control=None, quartets=8, phase="screening", pixels=pixels)
    assert len(seats) == 2
    assert all(ended(seat) for seat in seats)


def test_a_worker_that_hangs_is_given_up(
    candidates: dict[str, Candidate], pixels: np.ndarray, short_sessions: None, seats: list[pool.Worker], tmp_path: Path
) -> None:
    np.save(tmp_path / "pixels.npy", pixels)
    candidate = candidates["onnx@onnxruntime"]
    with (
        pytest.raises(ArtifactError, match="worker of 'onnx@onnxruntime' has not answered for 0 s"),
        pool.workers({"a": candidate}, tmp_path / "pixels.npy", {1: 1}) as opened,
    ):
        opened["a"].process.send_signal(signal.SIGSTOP)
        opened["a"].start_opening(1, 1)
        opened["a"].answer(timeout=0.3)
    assert ended(seats[0])


def test_the_last_words_of_a_worker_are_quoted(
    candidates: dict[str, Candidate], seats: list[pool.Worker], tmp_path: Path
) -> None:
    with (
        pytest.raises(ArtifactError, match=r"ended with exit code 1; its last words:(.|\n)*No such file.*missing\.npy"),
        pool.workers({"a": candidates["onnx@onnxruntime"]}, tmp_path / "missing.npy", {1: 1}),
    ):
        pass
    assert ended(seats[0])


def test_what_the_user_can_mend_arrives_as_the_error_it_was(
    candidates: dict[str, Candidate], pixels: np.ndarray, seats: list[pool.Worker]
) -> None:
    baseline = candidates["onnx@onnxruntime"]
    wrong = baseline.model_copy(update={"runtime": "onnxruntim"})
    with pytest.raises(ConfigError) as caught:
        timing.session([Comparison(wrong, baseline)], control=None, quartets=1, phase="screening", pixels=pixels)
    assert caught.value.message == "unknown runtime 'onnxruntim'"
    assert caught.value.hint == "did you mean 'onnxruntime'?"
    assert all(ended(seat) for seat in seats)


def test_more_threads_than_cores_are_refused() -> None:
    with pytest.raises(ConfigError, match="threads were asked for"):
        pool.cores_for(usable_cores() + 1)


def test_an_interrupt_ends_all_workers(
    candidates: dict[str, Candidate],
    pixels: np.ndarray,
    short_sessions: None,
    seats: list[pool.Worker],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(turns: Iterable[Any], description: str, total: int) -> Iterator[Any]:
        if "quartets" not in description:
            yield from turns
            return
        yield from list(turns)[:1]
        raise KeyboardInterrupt

    monkeypatch.setattr(timing, "track", interrupt)
    baseline = candidates["onnx@onnxruntime"]
    with pytest.raises(KeyboardInterrupt):
        timing.session([], control=baseline, quartets=4, phase="screening", pixels=pixels)
    assert len(seats) == 2
    assert all(ended(seat) for seat in seats)


PARENT = """
import sys, time
from pathlib import Path
from torchstone.core.values import Candidate
from torchstone.evaluate import pool
candidate = Candidate.model_validate_json(sys.argv[1])
artifact = candidate.artifact.model_copy(update={"directory": Path(sys.argv[2])})
candidate = candidate.model_copy(update={"artifact": artifact})
with pool.workers({"a": candidate}, Path(sys.argv[3]), {1: 1}) as opened:
    print(opened["a"].process.pid, flush=True)
    opened["a"].slot(1, 0, 60_000, 1)
"""


def test_a_worker_does_not_outlive_a_killed_parent(
    candidates: dict[str, Candidate], pixels: np.ndarray, tmp_path: Path
) -> None:
    np.save(tmp_path / "pixels.npy", pixels)
    candidate = candidates["onnx@onnxruntime"]
    arguments = [candidate.model_dump_json(), str(candidate.artifact.directory), str(tmp_path / "pixels.npy")]
    with subprocess.Popen([sys.executable, "-c", PARENT, *arguments], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert select.select([parent.stdout], [], [], 60)[0]
        worker = int(parent.stdout.readline())
        assert _alive(worker)
        parent.kill()
    deadline = time.monotonic() + 20
    while _alive(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(worker), "amid a slot of a minute, its parent dead for 20 s"


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


NOISY = """
import os, sys
print("a library's greeting")
os.write(1, b"and one from C\\n")
"""


def test_what_a_library_prints_does_not_break_the_protocol(
    candidates: dict[str, Candidate], pixels: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "pixels.npy", pixels)
    (tmp_path / "onnxruntime").mkdir()
    real = [path for path in sys.path if (Path(path) / "onnxruntime" / "__init__.py").exists()][0]  # noqa: RUF015
    # A package of that name before the real one: it prints, takes its own name away, and imports the real one.
    (tmp_path / "onnxruntime" / "__init__.py").write_text(
        NOISY + f"sys.path.insert(0, {real!r}); del sys.modules['onnxruntime']; import onnxruntime\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pool.workers({"a": candidates["onnx@onnxruntime"]}, tmp_path / "pixels.npy", {1: 1}) as opened:
        assert opened["a"].slot(1, 0, 1, 3)["calls"] >= 3


def test_a_worker_imports_what_its_runtime_needs_and_no_more(
    candidates: dict[str, Candidate], pixels: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("torch", "polars", "openvino", "scipy", "matplotlib", "timm", "torchvision"):
        (tmp_path / f"{package}.py").write_text("raise ImportError('not to be imported here')\n")
    np.save(tmp_path / "pixels.npy", pixels)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pool.workers({"a": candidates["onnx@onnxruntime"]}, tmp_path / "pixels.npy", {1: 2}) as opened:
        assert opened["a"].slot(1, 1, 1, 3)["calls"] >= 3
