"""``torchstone audit`` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from command_line import torchstone
from made_images import fill, picture


@pytest.fixture
def images(tmp_path: Path) -> Path:
    root = fill(tmp_path / "images", {"cat": 20, "dog": 20})
    picture(3).save(root / "dog" / "mistaken.png")
    return root


def test_it_prints_the_findings_and_where_the_page_is(images: Path, tmp_path: Path) -> None:
    done = torchstone("audit", images, "--quick", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("✗ conflicting_labels  1 picture standing under two labels")
    assert lines[1].startswith("    hint: ")
    assert any(line.startswith("1 error, ") for line in lines)
    (page,) = [line.removeprefix("page").strip() for line in lines if line.startswith("page ")]
    assert (tmp_path / page).read_text().startswith("<!DOCTYPE html>")


def test_the_second_call_says_the_same_and_a_sound_set_is_0(images: Path, tmp_path: Path) -> None:
    arguments = ("audit", images, "--quick", "--fix", "--json", "--out", tmp_path / "audit")
    first, second = (torchstone(*arguments) for _ in range(2))
    assert first.returncode == second.returncode == 1, first.stderr
    assert first.stdout == second.stdout
    answer = json.loads(first.stdout)
    assert answer["images"] == 41
    assert answer["cleaned"] == {"path": str(tmp_path / "audit/cleaned.parquet"), "keep": 39, "review": 0, "drop": 2}
    assert answer["exit_code"] == 1
    assert answer["findings"][0]["groups"] == [["cat/3.png", "dog/mistaken.png"]]
    again = torchstone("audit", answer["cleaned"]["path"], "--quick", cwd=tmp_path)
    assert again.returncode == 0, again.stdout


@pytest.mark.slow
def test_a_cleaned_catalog_can_be_trained_on(images: Path, tmp_path: Path) -> None:
    torchstone("audit", images, "--quick", "--fix", "--out", tmp_path / "audit")
    done = torchstone(
        "train",
        tmp_path / "audit/cleaned.parquet",
        "--model",
        "lenet5",
        "--epochs",
        "1",
        "--batch",
        "8",
        "--json",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["classes"] == ["cat", "dog"]
