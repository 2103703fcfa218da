"""What is counted: by each process in its own place, right when added up, whoever is killed."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command_line import torchstone
from live import Live, Load, serving, wait_for
from torchstone.core.errors import StorageError
from torchstone.core.values import Candidate
from torchstone.export import bundle
from torchstone.serve.board import SIZE, Board, Page, Slot
from torchstone.serve.metrics import FAMILIES, Histogram, Metrics, cell, families
from torchstone.serve.store import tables

parser = pytest.importorskip("prometheus_client.parser")
Samples = dict[str, dict[frozenset[tuple[str, str]], float]]


def samples(text: str) -> Samples:
    """Samples by name and labels, as a client of Prometheus' reads them."""
    found: Samples = {}
    for family in parser.text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    return found


def scraped(live: Live) -> Samples:
    reply = live.ask("/metrics")
    assert reply.status == 200
    return samples(reply.content.decode())


def total(found: Samples, name: str, **labels: str) -> float:
    """The sum of the samples with these labels."""
    return sum(value for one, value in found.get(name, {}).items() if labels.items() <= dict(one).items())


# the board


def test_processes_count_in_one_memory_and_a_killed_one_loses_nothing() -> None:
    code = (
        "import sys, os, signal\n"
        "from torchstone.serve.board import Board\n"
        "cells = Board(int(sys.argv[1]), 3).slot(int(sys.argv[2])).cells(2, name='a')\n"
        "for _ in range(int(sys.argv[3])): cells[1] += 1.0\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    board = Board.of(3)
    for slot, times in ((0, 1_000), (2, 50), (0, 7)):  # the last one comes in the first one's place
        command = [sys.executable, "-c", code, str(board.file), str(slot), str(times)]
        assert subprocess.run(command, pass_fds=[board.file], check=False).returncode == -signal.SIGKILL
    assert {number: block.room.cast("d").tolist() for number, block in board.blocks()} == {0: [0, 1_007], 2: [0, 50]}


def test_a_block_is_found_again_and_its_neighbours_are_left_alone() -> None:
    slot = Board.of(1).slot(0)
    names = ["a", "é" * 5, "x" * 1_000, "b"]
    for size, name in enumerate(names, start=1):
        slot.cells(size, name=name)[size - 1] = size
    assert [slot.cells(size, name=name).tolist()[-1] for size, name in enumerate(names, start=1)] == [1, 2, 3, 4]
    assert slot.block(3, name="text").nbytes == 8


def test_a_slot_that_is_full_says_so_once_and_counts_on(capsys: pytest.CaptureFixture[str]) -> None:
    board = Board.of(2)
    slot = board.slot(0)
    for number in range(6):
        slot.block(SIZE // 4, number=number)[0] = 1
    assert len(list(board.blocks())) == 3
    slot.cells(1, name="small")[0] += 1.0
    assert capsys.readouterr().err.count("no room for more numbers") == 1
    assert [block.what for _, block in board.blocks()][-1] == {"name": "small"}


def test_gauges_go_with_their_process_and_counters_stay() -> None:
    board = Board.of(1)
    slot = board.slot(0)
    slot.cells(1, name="a", kind="counter")[0] = 5.0
    slot.cells(1, name="b", kind="gauge")[0] = 5.0
    board.slot(0).clear_gauges()
    assert [block.room.cast("d")[0] for _, block in board.blocks()] == [5.0, 0.0]


def test_where_no_memory_can_be_shared_a_file_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("torchstone.serve.board.SHARED", tmp_path / "none")
    board = Board.of(1)
    board.slot(0).cells(1, name="a")[0] = 1.0
    assert [block.room.cast("d")[0] for _, block in board.blocks()] == [1.0]
    monkeypatch.setattr("torchstone.serve.board.SIZE", 2**50)
    with pytest.raises(StorageError, match="not to be had"):
        Board.of(1)


def test_a_page_is_read_whole() -> None:
    page = Page(memoryview(bytearray(1_024)))
    assert page.read() is None
    for text in (b"one", b"another, longer", b"x"):
        assert page.write(text)
        assert page.read() == text
    assert not page.write(b"y" * 600)
    assert page.read() == b"x"


# metrics


def test_several_workers_are_added_up() -> None:
    board = Board.of(3)
    seconds = ([0.0002, 0.003], [0.003, 40.0], [])
    for number, values in enumerate(seconds):
        slot = board.slot(number)
        histogram = Histogram(slot, "torchstone_request_seconds", path="/")
        for value in values:
            histogram.add(value)
        cell(slot, "torchstone_queue_images", model="a")[0] = 2.0
    named = {family.name: family for family in families(block for _, block in board.blocks())}
    assert set(named) == set(FAMILIES)
    buckets = {
        sample.labels["le"]: sample.value
        for sample in named["torchstone_request_seconds"].samples
        if sample.name.endswith("_bucket")
    }
    assert (buckets["0.0005"], buckets["0.0025"], buckets["0.005"], buckets["10.0"], buckets["+Inf"]) == (1, 1, 3, 3, 4)
    assert sum(sample.value for sample in named["torchstone_queue_images"].samples) == 6


def test_what_others_count_goes_on_where_a_killed_worker_was() -> None:
    """Its successor's log begins at 0 again; a gauge is what it is now."""
    board = Board.of(1)
    kept = {"lost": 0.0, "waiting": 0.0}
    for lost, waiting in ((5.0, 3.0), (2.0, 1.0)):
        metrics = Metrics(board.slot(0), "1.0")
        kept.update(lost=0.0, waiting=0.0)
        metrics.carry("torchstone_log_rows_lost", lambda: kept["lost"])
        metrics.carry("torchstone_log_rows_waiting", lambda: kept["waiting"])
        kept.update(lost=lost, waiting=waiting)
        metrics.pulse()
        metrics.pulse()
    found = {block.what["name"]: block.room.cast("d")[0] for _, block in board.blocks() if "rows" in block.what["name"]}
    assert found == {"torchstone_log_rows_lost": 7.0, "torchstone_log_rows_waiting": 1.0}


def answered(statuses: Iterable[int]) -> int:
    return sum(status == 200 for status in statuses)


def test_a_servers_numbers_are_those_of_its_clients(digits: Path, pictures: list[bytes]) -> None:
    """Two workers, one of which is killed under load: what both have counted stays, once. Images that the caches know
    come before: what they answered is carried over once a second, which a killed worker might not have done yet."""

    class Fresh(list[bytes]):
        def __getitem__(self, row: Any) -> Any:
            return super().__getitem__(row) + os.urandom(16)  # behind the end of the picture

    with serving(digits, "--workers", "2") as live:
        quiet = [live.classify(picture)[0]["cached"] for _ in range(6) for picture in pictures[:5]]
        assert wait_for(lambda: total(scraped(live), "torchstone_cache_hits_total") == sum(quiet) > 0)
        with Load(live, Fresh(pictures), clients=6) as load:
            assert wait_for(lambda: answered(load.statuses) > 150)
            os.kill(live.workers[0], signal.SIGKILL)
            assert wait_for(lambda: len(live.workers) == 2 and live.said("another one is started"))
            before = answered(load.statuses)
            assert wait_for(lambda: answered(load.statuses) > before + 150)
        assert live.ask("/v1/classify", b"no image").status == 422
        assert live.ask("/nothing/here").status == 404
        assert wait_for(lambda: total(scraped(live), "torchstone_workers") == 2)
        found = scraped(live)
        text = live.ask("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    counted = total(found, "torchstone_requests_total", path="/v1/classify", status="200")
    # An answer is counted before it is sent: the killed worker may have counted what did not arrive.
    received = len(quiet) + answered(load.statuses)
    assert received <= counted <= received + len(load.failures)
    predicted = total(found, "torchstone_predictions_total", model="digits", role="stable")
    assert predicted == pytest.approx(counted, abs=6)
    from_cache = total(found, "torchstone_cache_hits_total")
    assert from_cache == sum(quiet)
    computed = total(found, "torchstone_stage_seconds_count", stage="infer")
    assert computed + from_cache == pytest.approx(predicted, abs=1)  # it was killed between the two, at most
    assert total(found, "torchstone_batch_images_sum") == pytest.approx(computed, abs=6)
    assert total(found, "torchstone_requests_total", path="/v1/classify", status="422") == 1
    assert total(found, "torchstone_requests_total", path="other", status="404") == 1
    assert total(found, "torchstone_refused_total", code="unusable") == 1
    assert total(found, "torchstone_worker_deaths_total") == 1
    assert total(found, "torchstone_model_info", model="digits", role="stable", runtime="onnxruntime") == 2
    assert total(found, "torchstone_build_info") == 2
    assert total(found, "torchstone_queue_images") == 0
    assert text.headers["content-type"].startswith("application/openmetrics-text")
    assert text.content.rstrip().endswith(b"# EOF")


def test_every_name_is_explained() -> None:
    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()
    suffix = {"counter": "_total", "gauge": "", "histogram": ""}
    assert [name for name, family in FAMILIES.items() if f"`{name}{suffix[family.kind]}`" not in page] == []


# without a log


def test_without_a_log_nothing_is_kept_and_no_rollout_runs(
    digits: Path, exported: dict[str, Candidate], pictures: list[bytes], tmp_path: Path
) -> None:
    """A rollout that is started all the same ends at once, with the reason."""
    other = bundle.write(exported["int8@onnxruntime"], None, tmp_path / "other")
    state = tmp_path / "state"
    with serving(digits, "--no-log", "--cache", "none", "--state", str(state)) as live:
        (prediction,) = live.classify(pictures[0])
        body = f'{{"id": "{prediction["id"]}", "label": 1}}'
        reply = live.ask("/v1/feedback", body, content_type="application/json")
        assert (reply.status, reply.json["error"]["code"]) == (404, "unknown")
        started = torchstone("rollout", "start", "--candidate", other, "--state", state, "--mode", "shadow")
        assert started.returncode == 0, started.stderr
        assert wait_for(lambda: live.said("keeps no log"))
        status = torchstone("rollout", "status", "--state", state)
        assert (status.returncode, "keeps no log" in status.stdout + status.stderr) == (1, True)
        live.classify(pictures[1])
    with sqlite3.connect(state / tables.FILE) as store:
        assert store.execute("SELECT COUNT(*) FROM predictions").fetchone() == (0,)
    store.close()


def test_the_hot_path_of_a_number_is_an_addition() -> None:
    """The cells are memory, not objects: they are seen in another view of the same memory at once."""
    memory = memoryview(bytearray(SIZE))
    cells = Slot(memory).cells(4, name="a")
    cells[2] += 1.5
    assert 1.5 in np.frombuffer(memory[:4096], np.float64)
