from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import short
from command_line import SMALL, torchstone


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A whole small run by the command line: its directory and the JSON that it printed. No speed is asked for, so that
    its sessions may be short; those of ``make demo`` are not."""
    place = tmp_path_factory.mktemp("finished")
    with short.sessions():
        done = torchstone(*SMALL, "--json", cwd=place)
    assert done.returncode in (0, 3), done.stderr
    return place / "runs" / "small", json.loads(done.stdout)
