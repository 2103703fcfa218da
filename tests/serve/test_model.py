from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special

from torchstone import runtimes
from torchstone.core import registry
from torchstone.core.artifact import identified
from torchstone.core.errors import ArtifactError
from torchstone.core.values import Candidate
from torchstone.export import bundle
from torchstone.runtimes import golden, open_candidate
from torchstone.serve import model
from torchstone.serve.model import open_served
from torchstone.serve.settings import ServeSettings


def settings(place: Path, **options: object) -> ServeSettings:
    return ServeSettings(bundles=(str(place),), threads=1, **options)


@pytest.fixture
def spoilt(quantised: Path, tmp_path: Path) -> Path:
    """A bundle whose golden answers are not those of its model here, as on a CPU that rounds otherwise."""
    place = tmp_path / "spoilt"
    shutil.copytree(quantised, place)
    logits = np.load(place / "golden" / "logits.npy")
    (place / "golden" / "logits.npy").unlink()
    np.save(place / "golden" / "logits.npy", -logits)
    return place


def test_what_reproduces_its_golden_images_is_served(digits: Path) -> None:
    served = open_served(digits, settings(digits), "digits")
    pixels, logits = golden.load_images(digits, served.preprocess)
    assert np.abs(served.answer(pixels, 0) - special.softmax(logits, axis=1)).max() < 1e-5
    assert served.labels == tuple("0123456789")
    assert len(served.bundle) == 12


def test_what_does_not_is_refused_and_its_fp32_model_is_offered(spoilt: Path) -> None:
    with pytest.raises(ArtifactError, match="logits differ") as caught:
        open_served(spoilt, settings(spoilt), "spoilt")
    assert "--fallback" in str(caught.value.hint)
    served = open_served(spoilt, settings(spoilt, fallback=True), "spoilt")
    assert served.candidate.name == "onnx@onnxruntime"


def test_where_its_runtime_is_missing_the_fp32_model_is_offered(
    exported: dict[str, Candidate], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in an image that has ONNX Runtime alone."""
    place = bundle.write(exported["openvino"], exported["onnx"], tmp_path / "digits")
    monkeypatch.setattr(registry, "missing_packages", lambda names: [it for it in names if it == "openvino"])
    with pytest.raises(ArtifactError, match="needs openvino") as caught:
        open_served(place, settings(place), "digits")
    assert "torchstone[openvino" in str(caught.value.hint)
    assert "--fallback" in str(caught.value.hint)
    served = open_served(place, settings(place, fallback=True), "digits")
    assert served.candidate.name == "onnx@onnxruntime"


def test_without_a_model_to_fall_back_on_there_is_nothing_to_offer(spoilt: Path) -> None:
    shutil.rmtree(spoilt / "fallback")
    with pytest.raises(ArtifactError, match="logits differ") as caught:
        open_served(spoilt, settings(spoilt, fallback=True), "spoilt")
    assert "--fallback" not in str(caught.value.hint)


def test_a_model_that_runs_in_pytorch_is_refused(exported: dict[str, Candidate], tmp_path: Path) -> None:
    place = bundle.write(exported["bf16@torch"], None, tmp_path / "bundle")
    with pytest.raises(ArtifactError, match="runs in PyTorch"):
        open_served(place, settings(place), "torch")


def test_images_that_pytorch_resizes_are_refused(digits: Path, tmp_path: Path) -> None:
    place = tmp_path / "bundle"
    shutil.copytree(digits, place)
    artifact = bundle.load(place).artifact
    preprocess = artifact.preprocess.model_copy(update={"decoder": "simplejpeg-torch"})
    (place / "artifact.json").unlink()
    identified(artifact.model_copy(update={"preprocess": preprocess}), place).save(place / "artifact.json")
    with pytest.raises(ArtifactError, match="resized by PyTorch"):
        open_served(place, settings(place), "digits")


def test_a_batch_gives_what_single_images_give(digits: Path, quantised: Path, seen) -> None:
    pixels = seen.images(slice(0, 21))
    for place, apart in ((digits, 1e-5), (quantised, 1e-2)):
        served = open_served(place, settings(place), "digits")
        alone = np.concatenate([served.answer(pixels[row : row + 1], 0) for row in range(21)])
        for size in (2, 3, min(served.largest, 21)):
            together = served.answer(pixels[:size], 0)
            assert together.shape == (size, 10)
            assert np.abs(together - alone[:size]).max() < apart


def test_sessions_are_separate_copies(digits: Path) -> None:
    served = open_served(digits, settings(digits, sessions=2, max_batch=1), "digits")
    (copies,) = served.runners.values()
    assert len(copies) == 2
    assert copies[0] is not copies[1]
    assert served.largest == 1


class Timed:
    """A model that takes ``fixed`` seconds a call and ``each`` an image."""

    def __init__(self, fixed: float, each: float) -> None:
        self.fixed, self.each = fixed, each


@pytest.mark.parametrize(("fixed", "each", "largest"), [(1.0, 0.01, 16), (0.001, 1.0, 1), (1.0, 0.0, 16)])
def test_batches_grow_as_long_as_an_image_gets_cheaper(
    monkeypatch: pytest.MonkeyPatch, fixed: float, each: float, largest: int
) -> None:
    monkeypatch.setattr(model, "_seconds", lambda runner, _, size: runner.fixed + runner.each * size)
    runner = Timed(fixed, each)
    runners, costs = model._measured((runner,), None, np.zeros((1, 2, 2, 3), np.uint8), 16)  # pyright: ignore
    assert max(costs) == largest
    assert list(runners) == [1]


def test_a_compiled_batch_is_filled_or_left_alone() -> None:
    """Of a model compiled for 1, 4 and 16 images at 10, 12 and 20 ms."""
    steps = model._steps({1: 10.0, 4: 12.0, 16: 20.0}, padded=True)
    assert steps[0] == 0
    assert steps[1] == 1
    assert steps[2] == 2  # two in a batch of four cost 6 ms each, one by one 10
    assert steps[4] == 4
    assert steps[5] == 4  # five in a batch of sixteen would cost 4 ms each, four in theirs 3
    assert steps[16] == 16


class OfTheBatch:
    """A model whose answer for an image depends on the others, as dynamic quantisation's does."""

    def __call__(self, batch: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        return {"logits": (batch.reshape(len(batch), -1)[:, :3] - batch.mean()).astype(np.float32)}


def test_a_model_whose_answers_depend_on_the_batch_gets_single_images(
    digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (8, 4, 4, 3), dtype=np.uint8)
    assert not runtimes.answers_alone(OfTheBatch(), pixels)
    candidate = bundle.load(digits)
    real, _ = golden.load_images(digits, candidate.artifact.preprocess)
    assert runtimes.answers_alone(open_candidate(candidate), real)
    monkeypatch.setattr(model, "answers_alone", lambda *_: False)
    assert open_served(digits, settings(digits), "digits").largest == 1


def test_a_batch_larger_than_any_compiled_one_is_not_taken(digits: Path) -> None:
    served = open_served(digits, settings(digits), "digits")
    several = dataclasses.replace(served, largest=4, steps=(0, 1, 2, 3, 4))
    assert several.take(100) == 4


def test_the_arena_of_onnx_runtime_can_be_bounded(digits: Path) -> None:
    """A megabyte is enough for LeNet-5 and one image, not for ten thousand. In a process of its own: it is for good."""
    code = f"""
import numpy as np
from pathlib import Path
from torchstone.export import bundle
from torchstone.runtimes import open_candidate
from torchstone.runtimes.onnxruntime import bound_arena
bound_arena(1_000_000)
runner = open_candidate(bundle.load(Path({str(digits)!r})))
runner(np.zeros((1, 32, 32, 3), np.uint8))
try:
    runner(np.zeros((10_000, 32, 32, 3), np.uint8))
except Exception as error:
    print("refused:", error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "refused:" in done.stdout
