from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from daemons import Postgres, Redis, a_postgres, a_redis
from live import Live, serving
from torchstone.core.contracts import ImageSet
from torchstone.core.values import Artifact, Candidate
from torchstone.export import bundle
from torchstone.stages.read import Data


@pytest.fixture(scope="session")
def digits(exported: dict[str, Candidate], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of LeNet-5 for ONNX Runtime in FP32."""
    return bundle.write(exported["onnx"], None, tmp_path_factory.mktemp("served") / "digits")


@pytest.fixture(scope="session")
def quantised(exported: dict[str, Candidate], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the same network in INT8 for OpenVINO, with its FP32 model."""
    place = tmp_path_factory.mktemp("served") / "quantised"
    return bundle.write(exported["int8@openvino"], exported["onnx"], place)


@pytest.fixture(scope="session")
def seen(data: Data, trained: Artifact) -> ImageSet:
    """The test images."""
    return data.sets(trained, "test")["test"]


@pytest.fixture(scope="session")
def pictures(seen: ImageSet) -> list[bytes]:
    """The first of them, as their files are."""
    return [seen.encoded(row) for row in range(20)]


@pytest.fixture(scope="session")
def server(digits: Path) -> Iterator[Live]:
    """One server for the tests that leave it as it is."""
    with serving(digits) as live:
        yield live


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    with a_redis(tmp_path) as made:
        yield made


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    with a_postgres() as made:
        yield made
