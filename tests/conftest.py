"""What several rooms need: one small trained run on scikit-learn's digits, made once a session."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

# Two processes of tests have two threads each: those that wait must not spin on the cores that the others need (half of
# the processor's time, and tests that take a minute for a second). Before anything loads OpenMP.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import hypothesis
import pytest

import short
from torchstone.config import Settings
from torchstone.core.values import Artifact, Candidate
from torchstone.stages import compress, find, read, train
from torchstone.stages.read import Data

# A loaded machine is slow, not wrong: an example that takes long must not fail the property it shows.
hypothesis.settings.register_profile("torchstone", deadline=None)
hypothesis.settings.load_profile("torchstone")


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """LeNet-5 for six epochs: about 95 % of the digits right, in one arithmetic whatever the processor is best at."""
    runs = tmp_path_factory.mktemp("shared") / "runs"
    return Settings(
        data="digits", name="digits", runs=runs, model="lenet5", epochs=6, set={"precision": "bf16"},
        test_fraction=0.36, max_drop=3.0,
    )  # fmt: skip


@pytest.fixture(scope="session")
def data(settings: Settings) -> Data:
    return read.read(settings)


@pytest.fixture(scope="session")
def trained(settings: Settings, data: Data) -> Artifact:
    return train.trained(settings, data)


@pytest.fixture(scope="session")
def baseline(trained: Artifact) -> Candidate:
    return find.baseline_of(trained)


@pytest.fixture(scope="session")
def exported(baseline: Candidate, data: Data) -> dict[str, Candidate]:
    """Chain: its candidate, of the trained LeNet-5."""
    chains = ("onnx", "openvino", "bf16@openvino", "bf16@torch", "int8@onnxruntime", "int8@openvino")
    plans = compress.plan_all(chains)
    built = compress.build_all(plans, baseline, data, seed=0)
    return dict(zip(chains, built, strict=True))


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C as Python begins with: a shell that starts something in the background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def short_sessions() -> Iterator[None]:
    """For all tests of the module."""
    with short.sessions():
        yield
