"""Who may import whom, and what works where torch cannot be imported."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import torchstone

ROOT = Path(__file__).parent.parent
HEAVY = (
    "torch", "torchvision", "timm", "torch_pruning", "onnx", "onnxruntime", "openvino", "nncf", "polars", "sklearn",
    "scipy", "matplotlib",
)  # fmt: skip
WITHOUT = "import sys\nfor name in {names!r}: sys.modules[name] = None\n"


def run_without(names: tuple[str, ...], code: str) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in a new Python in which importing ``names`` raises."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT.format(names=names) + code], capture_output=True, text=True, check=False
    )


def test_the_layers_hold() -> None:
    linter = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def verbs() -> list[str]:
    folder = Path(torchstone.__file__).parent / "cli"
    return sorted(file.stem for file in folder.glob("*.py") if not file.stem.startswith("_"))


def test_help_needs_nothing_heavy() -> None:
    code = "sys.argv = ['torchstone', '--help']\nfrom torchstone.cli import main\nraise SystemExit(main())"
    done = run_without(HEAVY, code)
    assert done.returncode == 0, done.stderr
    assert "doctor" in done.stdout


@pytest.mark.parametrize("room", ["core", "judge", "doctor", "audit", "serve"])
def test_a_room_that_works_without_torch(room: str) -> None:
    folder = Path(torchstone.__file__).parent / room
    modules = [
        f"torchstone.{room}",
        *(f"torchstone.{room}.{module.name}" for module in pkgutil.iter_modules([str(folder)])),
    ]
    done = run_without(
        ("torch", "torchvision", "timm"),
        "import importlib\n" + f"for name in {modules!r}: importlib.import_module(name)",
    )
    assert done.returncode == 0, done.stderr


def test_preprocessing_works_without_torch() -> None:
    done = run_without(HEAVY, "import torchstone.data.preprocess")
    assert done.returncode == 0, done.stderr


def test_the_package_itself_imports_nothing_heavy() -> None:
    done = run_without((*HEAVY, "numpy", "PIL"), "import torchstone\nprint(torchstone.__doc__)")
    assert done.returncode == 0, done.stderr
    assert "images" in done.stdout
