"""What a user can get wrong: two lines and exit code 2, never a traceback, nothing half-written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from command_line import torchstone

RANDOM = np.random.default_rng(0)
GREY, BLACK = Image.new("RGB", (40, 40), "grey"), Image.new("RGB", (40, 40))


def folder(place: Path, classes: dict[str, int]) -> Path:
    """A data set of noise: class name → number of images."""
    for name, count in classes.items():
        (place / name).mkdir(parents=True)
        for number in range(count):
            pixels = RANDOM.integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / name / f"{number}.png")
    return place


def empty(place: Path) -> list[str | Path]:
    place.mkdir()
    return ["run", place]


MISTAKES: dict[str, tuple[Callable[[Path], list[str | Path]], str]] = {
    "a missing folder": (lambda place: ["run", place / "nowhere"], "hint"),
    "an empty folder": (empty, "hint"),
    "one class only": (lambda place: ["run", folder(place, {"only": 30})], "hint"),
    "a class with fewer images than parts": (lambda place: ["run", folder(place, {"a": 30, "b": 2})], "'b'"),
    "no data at all": (lambda _: ["run"], "no data was named"),
    "an unknown model": (lambda _: ["run", "digits", "--model", "resnt18"], "did you mean"),
    "missing weights": (lambda place: ["run", "digits", "--weights", place / "x.pth"], "neither a file nor"),
    "an unknown step": (lambda _: ["run", "digits", "--chain", "prunne=0.3"], "did you mean 'prune'?"),
    "an impossible order": (lambda _: ["run", "digits", "--chain", "int8+prune"], "put 'prune' before 'int8'"),
    "an unknown runtime": (lambda _: ["run", "digits", "--chain", "onnx@openvin"], "did you mean 'openvino'?"),
    "a value out of range": (lambda _: ["run", "digits", "--max-drop", "-1"], "max-drop = -1"),
    "a missing TOML file": (lambda place: ["run", "digits", "--config", place / "x.toml"], "does not exist"),
    "an unknown flag": (lambda _: ["run", "digits", "--max-dorp", "1"], "--max-drop"),
    "an unknown verb": (lambda _: ["rnu"], "did you mean 'run'?"),
    "a run that is none": (lambda place: ["verify", place], "hint"),
    "a model that is none": (lambda place: ["evaluate", place], "hint"),
    "a baseline that is none": (lambda place: ["judge", place, "onnx"], "hint"),
    "nothing to compress": (lambda place: ["compress", place, "onnx"], "hint"),
    "an audit of nothing": (lambda place: ["audit", place / "nowhere"], "hint"),
    "an audit among the images": (
        lambda place: ["audit", folder(place, {"a": 3, "b": 3}), "--out", place / "x"],
        "--out",
    ),
    "no place to write": (lambda _: ["run", "digits", "--runs", __file__], "cannot make a directory"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_explained(mistake: str, tmp_path: Path) -> None:
    make, expected = MISTAKES[mistake]
    done = torchstone(*make(tmp_path / "data"), cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("runs/*/")), "something half-made was left"


def toml(place: Path, text: str) -> Path:
    (place / "run.toml").write_text(text)
    return place / "run.toml"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max-dorp = 1", "unknown key 'max-dorp'"),
        ("max-drop = 1\nmax-drop = 2", "is not TOML"),
        ('max-drop = "much"', "max-drop = 'much'"),
        ('chain = ["int8+prune"]', "put 'prune' before 'int8'"),
    ],
)
def test_a_mistake_in_the_toml_file_is_explained(text: str, expected: str, tmp_path: Path) -> None:
    done = torchstone("run", "digits", "--config", toml(tmp_path, text), cwd=tmp_path)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert expected in done.stderr


def test_a_toml_file_says_what_the_flags_say(tmp_path: Path) -> None:
    from torchstone.config import settings, to_toml

    flags: dict[str, Any] = {
        "data": "digits", "max_drop": 2.0, "chain": ("onnx", "int8"), "small_input": True, "lr": 0.1,
    }  # fmt: skip
    chosen = settings(flags)
    assert settings({}, toml(tmp_path, to_toml(chosen))) == chosen
    assert settings({"max_drop": 1.0}, toml(tmp_path, to_toml(chosen))).max_drop == 1.0


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("corrupt.jpg", lambda path: path.write_bytes(b"\xff\xd8\xff nothing more")),
        ("empty.png", lambda path: path.write_bytes(b"")),
        ("moving.gif", lambda path: GREY.save(path, save_all=True, append_images=[BLACK])),
        ("print.jpg", lambda path: Image.new("CMYK", (40, 40), (9, 9, 9, 9)).save(path)),
        ("clear.png", lambda path: Image.new("RGBA", (40, 40), (9, 9, 9, 9)).save(path)),
    ],
)  # fmt: skip
def test_an_unusual_image_is_reported_and_never_fatal(name: str, write: Callable[[Path], Any], tmp_path: Path) -> None:
    source = folder(tmp_path / "data", {"a": 20, "b": 20})
    write(source / "a" / name)
    done = torchstone("audit", source, "--quick", cwd=tmp_path)
    assert done.returncode in (0, 1)
    assert name in done.stdout
    assert "Traceback" not in done.stderr


def test_a_full_disk_is_said_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """A file-size limit stands for the disk: the kernel refuses the write in the middle."""
    import resource
    import subprocess
    import sys

    def limit() -> None:
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    command = [sys.executable, "-m", "torchstone", "train", "digits", "--epochs", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, preexec_fn=limit, check=False)
    assert done.returncode == 2, done.stderr
    assert "hint" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_has_read_enough_is_no_error(tmp_path: Path) -> None:
    """As in ``torchstone recipes --json | head -1``; nobody reads at all here, so that the pipe is broken for sure."""
    import subprocess
    import sys

    command = [sys.executable, "-m", "torchstone", "recipes", "--json"]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(command, cwd=tmp_path, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_folder_is_explained(tmp_path: Path) -> None:
    source = folder(tmp_path / "data", {"a": 5, "b": 5})
    source.chmod(0)
    try:
        done = torchstone("run", source, cwd=tmp_path)
    finally:
        source.chmod(0o700)
    assert done.returncode == 2
    assert "permission" in done.stderr
