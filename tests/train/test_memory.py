"""A batch that does not fit into memory goes through in parts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

MEGABYTES = 1 << 20
SCRIPT = (
    "import sys; from pathlib import Path; import training; training.train_in_little_memory(Path(sys.argv[1]), {room})"
)


def trained(directory: Path, room: int) -> subprocess.CompletedProcess[str]:
    """Train in a process that may take ``room`` more bytes than it has when the first step begins."""
    return subprocess.run(
        [sys.executable, "-c", SCRIPT.format(room=room), str(directory)],
        cwd=Path(__file__).parent,
        env={"MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.mark.parametrize(("room", "parts"), [(4000, {1}), (450, {2, 4})])
def test_a_batch_is_halved_until_it_fits(room: int, parts: set[int], tmp_path: Path) -> None:
    done = trained(tmp_path, room * MEGABYTES)
    assert done.returncode == 0, done.stderr
    found, losses = json.loads((tmp_path / "parts.json").read_text())
    assert found in parts
    assert ("do not fit into memory at once" in done.stderr) == (found > 1)
    assert losses[1] < losses[0]


def test_where_even_the_smallest_part_does_not_fit_it_is_said(tmp_path: Path) -> None:
    done = trained(tmp_path, 8 * MEGABYTES)
    assert done.returncode != 0
    assert "does not fit into memory" in done.stderr
    assert "hint: a smaller --image-size or network" in done.stderr
