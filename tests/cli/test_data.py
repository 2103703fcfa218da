"""The verbs of ``torchstone data``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from command_line import torchstone
from torchstone.core import tables

RANDOM = np.random.default_rng(3)


def add(place: Path, count: int) -> Path:
    """So many images of noise more in each of two classes."""
    for name in ("cat", "dog"):
        (place / name).mkdir(parents=True, exist_ok=True)
        there = len(list((place / name).iterdir()))
        for number in range(there, there + count):
            pixels = RANDOM.integers(0, 256, (24, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / name / f"{number}.png")
    return place


def test_a_split_is_kept_and_what_changed_is_told(tmp_path: Path) -> None:
    images, out = add(tmp_path / "images", 20), tmp_path / "kept" / "split"
    first = torchstone("data", "split", images, "--out", out, "--json")
    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout)["sizes"] == {"train": 26, "val": 4, "calib": 2, "test": 8}
    before = dict(tables.read(out / "split.parquet")[0].select("item", "part").iter_rows())
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["split"]

    same = torchstone("data", "diff", out, images)
    assert (same.returncode, "the same images" in same.stdout) == (0, True)
    add(images, 5)
    (images / "cat/0.png").rename(images / "dog/was-cat.png")
    other = torchstone("data", "diff", out, images)
    assert other.returncode == 1
    assert "relabelled         1  cat/0.png → dog/was-cat.png (cat → dog)" in other.stdout
    assert "and 7 more" in other.stdout
    as_json = json.loads(torchstone("data", "diff", out, images, "--json").stdout)
    assert as_json["counts"] == {"added": 10, "removed": 0, "relabelled": 1, "changed": 0, "moved": 0}
    assert len(as_json["changes"]) == 11

    second = torchstone("data", "split", images, "--out", out)
    assert "40 images where the earlier split had them" in second.stdout
    after = dict(tables.read(out / "split.parquet")[0].select("item", "part").iter_rows())
    before["dog/was-cat.png"] = before.pop("cat/0.png")
    assert before.items() <= after.items()
    elsewhere = torchstone("data", "split", images, "--out", tmp_path / "other", "--previous", out, "--seed", "7")
    assert elsewhere.returncode == 0, elsewhere.stderr
    assert tables.read(tmp_path / "other/split.parquet")[0].equals(tables.read(out / "split.parquet")[0])


MISTAKES = {
    "no verb": (["data"], "split"),
    "an unknown verb": (["data", "dfif", "digits", "digits"], "did you mean 'diff'?"),
    "a version that is none": (["data", "diff", "digits", "nowhere"], "'nowhere' does not exist"),
    "a place that holds something else": (["data", "split", "digits", "--out", "mine"], "is no part of a split"),
    "an earlier split that is none": (
        ["data", "split", "digits", "--out", "x", "--previous", "nowhere"],
        "there is no split at 'nowhere'",
    ),
    "an impossible fraction": (
        ["data", "split", "digits", "--out", "x", "--test-fraction", "1.5"],
        "not between 0 and 1",
    ),
    "no times to split by": (["data", "split", "images", "--out", "x", "--by", "time"], "10 images lack it"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_explained(mistake: str, tmp_path: Path) -> None:
    arguments, expected = MISTAKES[mistake]
    add(tmp_path / "images", 5)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("not to be lost")
    done = torchstone(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert expected in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "mine"]
    assert (tmp_path / "mine/notes.txt").exists()
