"""The wheel on every Python that is supported, with what its lock file names and nothing else: no torch."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from live import serving
from torchstone.core.contracts import ImageSet
from torchstone.core.values import Artifact, Candidate
from torchstone.evaluate import predict
from torchstone.export import bundle
from torchstone.stages.read import Data

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("wheel")
    ran(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", place, ROOT)
    (found,) = place.glob("*.whl")
    return found


def ran(*words: str | Path) -> str:
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def python(version: str) -> str:
    """One that runs, as it is named on PATH or kept by pyenv."""
    for it in (f"python{version}", *sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python3"))):
        if shutil.which(it) and subprocess.run([it, "-c", ""], capture_output=True, check=False).returncode == 0:
            return str(it)
    pytest.skip(f"there is no Python {version} here")


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_it_installs_and_serves(
    version: str, wheel: Path, exported: dict[str, Candidate], data: Data, trained: Artifact, tmp_path: Path
) -> None:
    ran(python(version), "-m", "venv", tmp_path / "venv")
    installed = tmp_path / "venv/bin/python"
    lock = ROOT / f"deploy/locks/serve-py{version}.txt"
    ran(installed, "-m", "pip", "install", "--quiet", "--require-hashes", "--only-binary", ":all:", "-r", lock)
    ran(installed, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel)
    ran(installed, "-m", "pip", "check")

    seen: ImageSet = data.sets(trained, "test")["test"]
    expected = predict.predict(exported["onnx"], data.split, "test", seen, tmp_path / "predictions.parquet")
    served = bundle.write(exported["onnx"], None, tmp_path / "digits")
    with serving(served, "--state", tmp_path / "state", python=installed) as live:
        for row in range(20):
            top = live.classify(seen.encoded(row))[0]["top"][0]
            assert data.catalog.classes.index(top["label"]) == int(expected.scores[row].argmax())
