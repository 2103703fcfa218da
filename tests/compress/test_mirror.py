"""The mean over an image and its mirror image, in every format and after every other step."""

from __future__ import annotations

import numpy as np
import pytest
from built import made

from torchstone.compress import chain
from torchstone.core.errors import ChainError
from torchstone.core.values import Candidate
from torchstone.judge import select
from torchstone.models import cost, store
from torchstone.runtimes import golden, open_artifact, open_candidate
from torchstone.runtimes.openvino import import_openvino
from torchstone.stages import find
from torchstone.stages.read import Data


@pytest.fixture(scope="module")
def images(baseline: Candidate, data: Data) -> np.ndarray:
    return data.sets(baseline.artifact, "val")["val"].images(slice(0, 24))


@pytest.fixture(scope="module")
def both(baseline: Candidate, images: np.ndarray) -> np.ndarray:
    """float32[24, 10]: what the baseline says of the two, averaged by hand."""
    runner = open_candidate(baseline)
    return (runner(images)["logits"] + runner(np.ascontiguousarray(images[:, :, ::-1]))["logits"]) / 2


@pytest.mark.parametrize("text", ["mirror", "mirror+onnx", "mirror+onnx:exporter=dynamo", "mirror+openvino"])
def test_every_format_gives_the_mean_for_any_batch(
    text: str, images: np.ndarray, both: np.ndarray, baseline: Candidate, data: Data
) -> None:
    done = made(text, baseline, data)
    assert (done.free, done.artifact.mirrored) == (True, True)
    runner = open_candidate(done)
    assert golden.difference(runner(images)["logits"], both) < 1e-4
    single = np.concatenate([runner(images[row : row + 1])["logits"] for row in range(3)])
    assert golden.difference(single, both[:3]) < 1e-4


def test_mirrored_images_get_the_same_answers(images: np.ndarray, baseline: Candidate, data: Data) -> None:
    runner = open_candidate(made("mirror+onnx", baseline, data))
    turned = np.ascontiguousarray(images[:, :, ::-1])
    assert golden.difference(runner(turned)["logits"], runner(images)["logits"]) < 1e-4
    plain = open_candidate(baseline)
    assert golden.difference(plain(turned)["logits"], plain(images)["logits"]) > 0.1


def rounded(candidate: Candidate) -> int:
    """Activations that the graph rounds to 8 bits."""
    model = import_openvino().Core().read_model(candidate.artifact.directory / "model.xml")
    names = [node.get_friendly_name() for node in model.get_ops() if node.get_type_name() == "FakeQuantize"]
    return sum("fq_output" in name for name in names)


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
def test_int8_quantises_each_layer_once(
    target: str, images: np.ndarray, both: np.ndarray, baseline: Candidate, data: Data
) -> None:
    done, plain = made(f"mirror+int8@{target}", baseline, data), made(f"int8@{target}", baseline, data)
    assert done.artifact.size_mb == pytest.approx(plain.artifact.size_mb, rel=0.15)
    if target == "openvino":
        assert rounded(done) == rounded(plain) == 5, "neither the pixels nor the logits, besides what every layer takes"
    found = open_candidate(done)(images)["logits"]
    assert (found.argmax(1) == both.argmax(1)).mean() >= 0.9
    exact = open_candidate(plain)(images)["logits"], open_candidate(baseline)(images)["logits"]
    assert golden.difference(found, both) <= 2 * golden.difference(*exact)


def test_the_weights_stay_and_the_work_doubles(baseline: Candidate, data: Data) -> None:
    done = made("mirror", baseline, data).artifact
    assert done.files == baseline.artifact.files
    assert done.id != baseline.artifact.id
    assert cost.macs_of(store.load(done), 32) == 2 * cost.macs_of(store.load(baseline.artifact), 32)


def test_steps_before_and_after_it_go_together(images: np.ndarray, baseline: Candidate, data: Data) -> None:
    """Pruning and training, on either side; val sees what is served."""
    for text in ("mirror+prune=0.3+finetune=1", "prune=0.3+finetune=1+mirror"):
        done = made(text, baseline, data).artifact
        bare = open_artifact(done.model_copy(update={"mirrored": False}))
        turned = np.ascontiguousarray(images[:, :, ::-1])
        mean = np.float32(0.5) * (bare(images)["logits"] + bare(turned)["logits"])
        assert golden.difference(open_artifact(done)(images)["logits"], mean) < 1e-4
        golden.check(done.directory, done.preprocess, open_artifact(done))


def test_a_student_of_it_looks_once(baseline: Candidate, data: Data) -> None:
    taught = made("mirror+student=lenet5:epochs=1,views=1", baseline, data).artifact
    assert not taught.mirrored
    assert "taught by lenet5 (mirror)" in taught.notes[-1]
    assert made("mirror+student=lenet5:epochs=1,views=1+mirror", baseline, data).artifact.mirrored


def test_orders_that_mean_nothing_are_refused(baseline: Candidate, data: Data) -> None:
    with pytest.raises(ChainError, match="looks at the mirror image already"):
        made("mirror+mirror", baseline, data)
    with pytest.raises(ChainError, match="'mirror' takes torch, 'int8' made onnx"):
        chain.plan("int8+mirror")
    with pytest.raises(ChainError, match="'bf16' must come last"):
        chain.plan("bf16@torch+mirror")


def test_it_is_free_and_yet_not_the_same_sums(baseline: Candidate, data: Data) -> None:
    """Neither safe by itself, nor what tells a compression's gain from a runtime's."""
    done, plain, int8 = (made(text, baseline, data) for text in ("mirror+onnx", "onnx", "int8"))
    assert plain.repeats(baseline)
    assert not done.repeats(baseline)
    assert select.same_runtime_rival([baseline, done, plain, int8], int8) == plain
    assert find.candidate_of(done.artifact, done.artifact.chain, None, 1).free
