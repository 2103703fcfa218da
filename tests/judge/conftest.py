from pathlib import Path

import pytest
from stored_run import World, empty_world


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A run with nothing in it."""
    return empty_world(tmp_path)


@pytest.fixture(scope="session")
def stored_ladder(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Six candidates as a small network gives them, timed for screening; none has met the test set."""
    made = empty_world(tmp_path_factory.mktemp("ladder"))
    made.add("torch", ms=4.0, runtime="torch", kilobytes=188)
    made.add("onnx@onnxruntime", ms=1.6, free=True)
    made.add("onnx@openvino", ms=1.2, runtime="openvino", free=True)
    made.add("bf16@openvino", ms=0.9, runtime="openvino", precision="bf16", free=True, lost=(0, 1), gained=(1, 1))
    made.add("int8@onnxruntime", ms=0.8, lost=(1, 2), gained=(1, 1), kilobytes=49)
    made.add("int8@openvino", ms=0.5, runtime="openvino", lost=(1, 3), gained=(1, 2), kilobytes=49)
    made.add("prune=0.7+int8@openvino", ms=0.2, runtime="openvino", lost=(60, 120), kilobytes=12)
    made.time("screening", 4)
    return made


@pytest.fixture
def ladder(stored_ladder: World, tmp_path: Path) -> World:
    """A copy of ``stored_ladder`` that a test may change."""
    return stored_ladder.copy(tmp_path / "runs")
