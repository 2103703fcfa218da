"""``torchstone judge --evidence`` as another tool's user types it: no run, no model, no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import torchstone

HEAVY = ("torch", "torchvision", "timm", "onnx", "onnxruntime", "openvino", "nncf", "scipy", "sklearn", "polars")


def answers(path: Path, wrong: int, images: int = 1500) -> Path:
    """The first ``wrong`` of the images are taken for something else."""
    rows = [f"{n},{'ab'[n % 2]},{'ba'[n % 2] if n < wrong else 'ab'[n % 2]}" for n in range(images)]
    path.write_text("\n".join(["id,y_true,y_pred", *rows]) + "\n")
    return path


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name, wrong in (("base", 60), ("good", 61), ("bad", 160)):
        answers(tmp_path / f"{name}.csv", wrong)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "code", "outcome"),
    [
        (["base.csv", "good.csv"], 0, "pass"),
        (["base.csv", "bad.csv"], 1, "fail"),
        (["base.csv", "good.csv", "--max-drop", "0.1"], 3, "undecided"),
        (["base.csv", "good.csv", "bad.csv"], 0, "pass"),
        (["base.csv", "good.csv", "bad.csv", "--all"], 1, "pass"),
        (["base.csv", "bad.csv", "good.csv", "--unordered"], 0, "pass"),
    ],
)
def test_the_exit_code_says_what_the_verdict_says(arguments: list[str], code: int, outcome: str, place: Path) -> None:
    done = torchstone("judge", "--evidence", *arguments, "--json", cwd=place)
    assert done.returncode == code, done.stderr
    found = json.loads(done.stdout)
    assert (found["outcome"], found["exit_code"], found["look"]) == (outcome, code, 1)
    assert "id, " not in done.stdout
    assert "item = 'id', label = 'y_true', prediction = 'y_pred'" in done.stderr
    assert "this test set of 1,500 images can show" in done.stderr


def test_the_table_says_what_was_lost(place: Path) -> None:
    done = torchstone("judge", "--evidence", "base.csv", "bad.csv", "--ledger", "looks", cwd=place)
    assert done.returncode == 1
    for expected in ("1,500 test images", "look 1 at 97.5 %", "fail", "nothing of speed", "100 (a, now b)", "'a'"):
        assert expected in done.stdout.replace("\n", " "), expected
    assert list((place / "looks").glob("*.json"))
    assert not (place / "ledger").exists()


def test_what_it_wrote_is_verified_and_an_altered_table_is_found(place: Path) -> None:
    done = torchstone("judge", "--evidence", "base.csv", "good.csv", "--out", "proof", cwd=place)
    assert done.returncode == 0, done.stderr
    assert "check it: torchstone verify proof" in done.stdout
    (place / "good.csv").unlink()
    checked = torchstone("verify", "proof", cwd=place)
    assert (checked.returncode, "every number" in checked.stdout) == (0, True), checked.stderr
    path = place / "proof" / "candidate-1.parquet"
    path.write_bytes(path.read_bytes()[:-3])
    checked = torchstone("verify", "proof", "--json", cwd=place)
    assert checked.returncode == 1
    assert "candidate-1.parquet" in {one["field"] for one in json.loads(checked.stdout)["mismatches"]}


def test_it_needs_neither_torch_nor_a_runtime(place: Path) -> None:
    code = (
        f"import sys\nfor name in {HEAVY!r}: sys.modules[name] = None\n"
        "sys.argv = ['torchstone', 'judge', '--evidence', 'base.csv', 'good.csv']\n"
        "from torchstone.cli import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--evidence", "base.csv", "nowhere.csv"], "neither a file nor a directory"),
        (["--evidence", "base.csv", "good.csv", "--min-speedup", "2"], "--min-speedup cannot be judged"),
        (["--evidence", "base.csv", "good.csv", "--metric", "auroc"], "AUROC is made of scores"),
        (["base.csv", "good.csv", "--ledger", "looks"], "--ledger goes with --evidence"),
        (["base.csv", "good.csv", "--out", "proof"], "--out goes with --evidence"),
        (["--evidence", "base.csv", "good.csv", "--out", "."], "would replace the directory of"),
    ],
)
def test_a_mistake_is_explained(arguments: list[str], expected: str, place: Path) -> None:
    done = torchstone("judge", *arguments, cwd=place)
    assert done.returncode == 2
    assert expected in done.stderr
    assert "hint:" in done.stderr
    assert not list(place.glob("**/*.json")), "no look was spent"
