"""What may not be shipped is refused, what names no licence is not waved through."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.fixture(scope="module")
def licences() -> ModuleType:
    spec = importlib.util.spec_from_file_location("licences", DEPLOY / "licences.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("licence", "refused"),
    [
        ("GNU Affero General Public License v3", True),
        ("AGPL-3.0-or-later", True),
        ("BUSL-1.1", True),
        ("CC-BY-NC-4.0", True),
        ("Free for non-commercial use", True),
        ("UNKNOWN", True),
        ("BSL-1.0", False),
        ("Apache-2.0 AND BSL-1.0 AND MIT", False),
        ("LGPL-3.0-only", False),
    ],
)
def test_a_licence(licences: ModuleType, licence: str, refused: bool) -> None:
    assert bool(licences.judged({"somebodys-package": licence})) is refused


def test_what_a_person_looked_up_is_known(licences: ModuleType) -> None:
    assert licences.judged(dict.fromkeys(licences.LOOKED_UP, "UNKNOWN")) == []
    assert set(licences.LOOKED_UP) <= licences.locked()


def test_what_is_installed_here_may_be_shipped() -> None:
    pytest.importorskip("piplicenses", reason="pip-licenses is not installed")
    done = subprocess.run(
        [sys.executable, DEPLOY / "licences.py"], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "; 0 refused" in done.stdout
