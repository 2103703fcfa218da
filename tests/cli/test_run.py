"""The main job by the command line, and what can happen to it."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from command_line import SMALL, started, torchstone
from torchstone.core import tables
from torchstone.core.run import Run
from torchstone.core.verdict import Verdict
from torchstone.export import bundle
from torchstone.runtimes import golden, open_candidate

Finished = tuple[Path, dict[str, Any]]


def test_it_ends_with_a_verdict_a_report_and_a_bundle(finished: Finished) -> None:
    place, printed = finished
    stored = Verdict.load(Run(place).verdict)
    assert printed["outcome"] == stored.outcome
    assert [row["name"] for row in printed["rows"]] == ["torch", "onnx@onnxruntime", "int8@onnxruntime"]
    assert printed["test_images"] >= 600
    passed = [row for row in printed["rows"] if row["outcome"] == "pass"]
    assert passed, printed["sentence"]
    assert all(row["accuracy"]["drop_upper"] <= 3 for row in passed)
    assert (place / "report.html").stat().st_size > 50_000


def test_what_met_the_test_set_is_shown_in_use(finished: Finished) -> None:
    place, _ = finished
    rows = Verdict.load(Run(place).verdict).rows
    met = [row for row in rows if row.accuracy and row.accuracy.part == "test"]
    assert len(met) > 1
    for row in met:
        assert row.portrait is not None
        alone, request, made = (row.portrait.of(kind, 1) for kind in ("model", "request", "prepare"))
        assert alone is not None
        assert request is not None
        assert made is not None
        assert alone.calls >= 368
        assert alone.median_ms <= alone.p99_ms <= (alone.p99_upper_ms or 0)
        assert made.median_ms < request.median_ms
        assert 0 < row.portrait.gzip_mb < 1.2 * row.size_mb
    assert len({row.portrait.peak_mb for row in met if row.portrait}) > 1, "each of its own process"
    assert "In use" in (place / "report.html").read_text()


def test_the_bundle_proves_itself_where_it_is_opened(finished: Finished) -> None:
    place, _ = finished
    served = bundle.load(place / "bundle")
    golden.check(place / "bundle", served.artifact.preprocess, open_candidate(served))
    manifest = json.loads((place / "bundle" / "manifest.json").read_text())
    files = {path.relative_to(place / "bundle").as_posix() for path in (place / "bundle").rglob("*") if path.is_file()}
    assert files == {*manifest, "manifest.json"}
    assert json.loads((place / "bundle" / "labels.json").read_text()) == [str(digit) for digit in range(10)]


def test_the_same_command_again_measures_nothing_and_says_the_same(finished: Finished) -> None:
    place, printed = finished
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*.parquet")}
    again = torchstone(*SMALL, "--json", cwd=place.parent.parent)
    assert json.loads(again.stdout) == printed
    assert {path: path.stat().st_mtime_ns for path in place.rglob("*.parquet")} == before


def test_people_get_a_table_and_the_same_exit_code(finished: Finished) -> None:
    place, printed = finished
    done = started(*SMALL, cwd=place.parent.parent)
    assert done.returncode == printed["exit_code"]
    assert "candidate" in done.stdout
    assert "onnx@onnxruntime" in done.stdout
    assert printed["sentence"].split()[0] in done.stdout


@pytest.fixture
def copy(finished: Finished, tmp_path: Path) -> Path:
    shutil.copytree(finished[0], tmp_path / "runs" / "small")
    return tmp_path / "runs" / "small"


def verify(place: Path) -> dict[str, Any]:
    done = torchstone("verify", place, "--json")
    found = json.loads(done.stdout)
    assert done.returncode == found["exit_code"]
    return found


def test_verify_recomputes_every_number(copy: Path) -> None:
    assert verify(copy) == {"mismatches": [], "exit_code": 0}


@pytest.mark.parametrize("name", ["onnx@onnxruntime", "int8@onnxruntime"])
def test_verify_names_the_row_of_one_changed_prediction(copy: Path, name: str) -> None:
    candidate = next(one for one in Run(copy).load_candidates() if one.name == name)
    path = next(Run(copy).evidence(candidate).glob("predictions-*.parquet"))
    table, header = tables.read(path)
    scores = table["scores"].to_numpy().copy()
    scores[3, 1] += 1e-3
    tables.write(
        path, tables.frame({**{column: table[column] for column in ("item", "label")}, "scores": scores}), header
    )
    found = verify(copy)
    assert found["exit_code"] == 1
    assert name in {one["row"] for one in found["mismatches"]}


def test_verify_names_the_row_of_one_changed_timing(copy: Path) -> None:
    candidate = next(one for one in Run(copy).load_candidates() if one.name == "onnx@onnxruntime")
    path = Run(copy).timings(candidate)
    table, header = tables.read(path)
    milliseconds = table["ms"].to_list()
    milliseconds[5] *= 0.5
    columns = {column: milliseconds if column == "ms" else table[column] for column in table.columns}
    tables.write(path, tables.frame(columns), header)
    assert "onnx@onnxruntime" in {one["row"] for one in verify(copy)["mismatches"]}


def test_verify_notices_a_changed_bundle(copy: Path) -> None:
    model = copy / "bundle" / "model.onnx"
    content = bytearray(model.read_bytes())
    content[100] ^= 1
    model.unlink()  # it may be a hard link
    model.write_bytes(bytes(content))
    assert any(one["row"] == "bundle" and "model.onnx" in str(one) for one in verify(copy)["mismatches"])


def test_a_dry_run_shows_the_ladder_and_leaves_nothing(tmp_path: Path) -> None:
    shown = torchstone("run", "digits", "--model", "lenet5", "--for", "20m", "--dry-run", "--json", cwd=tmp_path)
    rows = json.loads(shown.stdout)
    assert [row["chain"] for row in rows][:3] == ["onnx", "openvino", "bf16@openvino"]
    assert rows[0]["when"] == "always"
    assert rows[-1]["chain"].startswith("prune=0.5+finetune=2")
    assert {row["seconds"] for row in rows} <= {None, 0.0}, "nothing is known of a model that nobody trained"
    assert list(tmp_path.iterdir()) == []
    unread = torchstone("run", "digits", "--dry-run", "--chain", "onnx", cwd=tmp_path)
    assert unread.returncode == 0
    assert "to be trained first: --model resnet20 by the recipe scratch, 30 epochs, because images" in unread.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("short_sessions")
def test_compress_evaluate_and_judge_by_themselves(copy: Path) -> None:
    planned = torchstone("compress", copy, "prune=0.3+finetune=1", "--dry-run")
    assert planned.returncode == 0
    assert "1 epoch, val" in planned.stdout
    assert "Nothing was built" in planned.stdout
    built = json.loads(torchstone("compress", copy, "prune=0.3+finetune=1+onnx", "--json").stdout)
    assert Path(built[0]["directory"]).is_dir()
    metrics = json.loads(torchstone("evaluate", built[0]["directory"], "--json").stdout)
    assert metrics["part"] == "val"
    assert metrics["top1"] > 0.5
    judged = torchstone("judge", copy, built[0]["directory"], "--max-drop", "20", "--skip-portraits", "--json")
    verdict = json.loads(judged.stdout)
    assert {row["portrait"] for row in verdict["rows"]} == {None}
    assert verdict["look"] == 1  # the ledger lies beside the run, and only the run was copied
    assert verdict["rows"][1]["accuracy"]["part"] == "test"
    assert verify(copy)["exit_code"] == 0
    same = torchstone("judge", copy, built[0]["directory"], copy, "--max-drop", "20")
    assert same.returncode == 2
    assert "is named as its own candidate" in same.stderr
    assert verify(copy)["exit_code"] == 0, "and nothing was lost by asking"
    passed, looks = (copy / "bundle" / "manifest.json").read_bytes(), content_of(Run(copy).ledger)
    tiny = torchstone("judge", copy, built[0]["directory"], "--max-size-mb", "0.0001", "--skip-portraits")
    assert tiny.returncode == 1
    assert "of an earlier judgement" in tiny.stderr
    assert "the test set was not touched" in " ".join(tiny.stdout.split())
    assert content_of(Run(copy).ledger) == looks, "a size is known without a look"
    assert "bundle   none" in tiny.stdout
    assert (copy / "bundle" / "manifest.json").read_bytes() == passed, "what passed can still be served"
    assert verify(copy)["exit_code"] == 0, "nothing passed, and its numbers are right"


def content_of(place: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file()}


def interrupted(place: Path, until: str, how: signal.Signals) -> tuple[int, str]:
    """Start the small run and send it a signal as soon as it prints ``until``; its exit code and what it printed."""
    command = [sys.executable, "-m", "torchstone", *SMALL]
    with subprocess.Popen(command, cwd=place, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        seen = ""
        for line in process.stderr:
            seen += line
            if until in line:
                time.sleep(0.2)
                process.send_signal(how)
                break
        seen += process.stderr.read()
        return process.wait(timeout=60), seen


def test_ctrl_c_keeps_what_is_finished(tmp_path: Path) -> None:
    code, seen = interrupted(tmp_path, "epoch   2/6", signal.SIGINT)
    assert code == 130
    assert "Traceback" not in seen
    assert (tmp_path / "runs" / "small" / "data" / "catalog.parquet").exists()


@pytest.mark.slow
def test_killed_at_every_stage_it_ends_with_the_same_accuracies(finished: Finished, tmp_path: Path) -> None:
    """kill -9 while it trains, builds, screens and times; then the end is that of the run that was left alone."""
    for until in ("look 1", "epoch   3/6", "building onnx", "screening", "timing"):
        code, seen = interrupted(tmp_path, until, signal.SIGKILL)
        assert code == -signal.SIGKILL, seen
    done = torchstone(*SMALL, "--json", cwd=tmp_path)
    assert done.returncode in (0, 3), done.stderr
    ours, theirs = json.loads(done.stdout)["rows"], finished[1]["rows"]
    assert [row["candidate_id"] for row in ours] == [row["candidate_id"] for row in theirs]
    for one, other in zip(ours, theirs, strict=True):
        if one["accuracy"]["part"] == other["accuracy"]["part"]:
            assert one["accuracy"] == other["accuracy"]
    assert json.loads(done.stdout)["look"] == 1
    assert verify(tmp_path / "runs" / "small")["exit_code"] == 0
