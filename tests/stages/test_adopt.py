"""A model that somebody else made becomes a run and a bundle: what it is told, what it finds out, what it warns of."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from torchstone.core.errors import ArtifactError, ConfigError, DataError
from torchstone.core.run import Run
from torchstone.core.values import RuntimeOptions
from torchstone.data import declared
from torchstone.export import bundle
from torchstone.runtimes import golden, open_artifact, open_candidate
from torchstone.stages.adopt import Adopted, adopt
from torchstone.stages.compress import compress
from torchstone.stages.evaluate import evaluate

SIDE = 16
COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}


def foreign(path: Path, *, half: bool = False, batch: Any = 1, background: bool = True) -> Path:
    """A network as Caffe's were: NCHW in BGR less a mean, opset 7, weights among its inputs, one image, a Reshape that
    says so, a Softmax, no names; it answers with the brightest colour, 'background' first."""
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    floats = np.float16 if half else np.float32
    # one convolution takes each colour, in the order blue, green, red, to its class: red, green, blue
    kernel = np.zeros((3, 3, 3, 3), floats)
    for place, colour in enumerate((2, 1, 0)):
        kernel[place, colour, 1, 1] = 0.05
    spread = np.eye(3, 4, 1, dtype=floats) if background else np.eye(3, dtype=floats)
    outputs = spread.shape[1]
    tensors = [
        numpy_helper.from_array(kernel, "kernel"),
        numpy_helper.from_array(np.array([batch if batch == 1 else -1, 3], np.int64), "shape"),
        numpy_helper.from_array(spread, "spread"),
    ]
    nodes = [
        helper.make_node("Conv", ["data", "kernel"], ["seen"], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["seen"], ["pooled"]),
        helper.make_node("Reshape", ["pooled", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "spread"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["prob"]),
    ]
    listed = [helper.make_tensor_value_info(one.name, one.data_type, one.dims) for one in tensors]
    image = helper.make_tensor_value_info("data", kind, [batch, 3, SIDE, SIDE])
    answer = helper.make_tensor_value_info("prob", kind, [batch, outputs])
    graph = helper.make_graph(nodes, "foreign", [image, *listed], [answer], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 7)], ir_version=3), path)
    return path


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures of each colour, noisy, in folders of its name."""
    place = tmp_path_factory.mktemp("samples")
    random = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (place / name).mkdir()
        for number in range(12):
            pixels = np.clip(random.normal(colour, 40, (20, 24, 3)), 0, 255).astype(np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG")
            (place / name / f"{number}.png").write_bytes(buffer.getvalue())
    return place


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("labels") / "labels.txt"
    path.write_text("background\nred\ngreen\nblue\n")
    return path


def imported(model: Path, place: Path, **told: Any) -> Adopted:
    given: dict[str, Any] = {"preprocess": "caffe", "labels": None, "samples": None, "output": None}
    return adopt(model, run=Run(place / "runs" / model.stem), **{**given, **told})


@pytest.fixture(scope="module")
def adopted(tmp_path_factory: pytest.TempPathFactory, labels: Path, samples: Path) -> Adopted:
    place = tmp_path_factory.mktemp("adopted")
    return imported(foreign(place / "theirs.onnx", half=True), place, labels=labels, samples=str(samples))


def test_its_bundle_takes_our_pixels_and_gives_their_classes(adopted: Adopted) -> None:
    served = bundle.load(adopted.run.bundle)
    assert (served.name, served.runtime, served.artifact.classes) == ("onnx@onnxruntime", "onnxruntime", tuple(COLOURS))
    pixels = np.stack([np.full((SIDE, SIDE, 3), colour, np.uint8) for colour in COLOURS.values()])
    logits = open_candidate(served)(pixels)["logits"]
    means = np.array(list(COLOURS.values()), np.float32) - np.array([123, 117, 104])
    expected = means * np.float32(np.float16(0.05))
    np.testing.assert_allclose(logits, expected, atol=1e-3)
    golden.check(adopted.run.bundle, served.artifact.preprocess, open_candidate(served))


def test_the_right_preprocessing_raises_no_doubt(adopted: Adopted) -> None:
    assert adopted.trial is not None
    assert (adopted.trial.warning, adopted.trial.right) == (None, adopted.trial.images)
    assert adopted.trial.images < 36, "the test part takes no part in it"


def test_a_wrong_order_of_colours_is_noticed(tmp_path: Path, labels: Path, samples: Path) -> None:
    told = tmp_path / "told.toml"
    told.write_text('colour = "rgb"\nscale = 255\nmean = [123, 117, 104]\n')
    found = imported(
        foreign(tmp_path / "m.onnx"), tmp_path, preprocess=str(told), labels=labels, samples=str(samples)
    ).trial
    assert found is not None
    assert found.warning is not None
    assert "BGR" in found.warning
    best = found.others[0]
    assert (best.right, best.lost) == (found.images, 0)
    assert 0 < best.lower < (best.gained - best.lost) / found.images <= best.upper


def test_numbers_that_are_off_by_one_are_noticed(tmp_path: Path, samples: Path) -> None:
    """Labels in the order of another list: whatever is seen is called by the name before it."""
    shifted = tmp_path / "labels.json"
    shifted.write_text(json.dumps({"0": "green", "1": "blue", "2": "red"}))
    model = foreign(tmp_path / "m.onnx", background=False)
    found = imported(model, tmp_path, labels=shifted, samples=str(samples)).trial
    assert found is not None
    assert found.right == 0
    assert found.others[0].change.startswith("class numbers one")


def test_it_is_quantised_and_evaluated_like_ours(adopted: Adopted, samples: Path) -> None:
    assert adopted.quantisable
    small = compress(str(adopted.run.root), ["int8@onnxruntime"])[0]
    pixels, logits = golden.load_images(adopted.artifact.directory, adopted.artifact.preprocess)
    found = open_artifact(small.artifact)(pixels)["logits"]
    assert np.array_equal(found.argmax(1), logits.argmax(1))
    assert b"QuantizeLinear" in (small.artifact.directory / "model.onnx").read_bytes()
    figures = evaluate(str(adopted.run.bundle), str(samples), None)
    assert (figures["images"], figures["top1"]) == (36, 1.0)


def test_without_samples_its_golden_images_are_made(tmp_path: Path) -> None:
    found = imported(foreign(tmp_path / "m.onnx", batch="N", background=False), tmp_path)
    assert found.artifact.classes == ("0", "1", "2")
    assert any("synthetic" in note for note in found.artifact.notes)
    assert not found.quantisable
    assert len(list((found.run.bundle / "golden").glob("*.png"))) == golden.IMAGES


@pytest.mark.openvino
def test_it_runs_in_every_runtime_that_opens_its_format(adopted: Adopted) -> None:
    pixels, logits = golden.load_images(adopted.artifact.directory, adopted.artifact.preprocess)
    for runtime, batch in (("openvino", 1), ("openvino", 3), ("onnxruntime", 1)):
        found = open_artifact(adopted.artifact, RuntimeOptions(batch=batch), runtime=runtime)(pixels)["logits"]
        assert golden.difference(found, logits) < 1e-4


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({"preprocess": "imagnet"}, "imagenet"),
        ({"labels": "few"}, "2 labels for 4 outputs"),
        ({"samples": "strange"}, "class 'pink'"),
        ({"output": "probs"}, "did you mean 'prob'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(told: dict[str, str], reason: str, tmp_path: Path, labels: Path) -> None:
    model = foreign(tmp_path / "m.onnx")
    given: dict[str, Any] = {"labels": labels, **told}
    if told.get("labels"):
        given["labels"] = tmp_path / "few.txt"
        given["labels"].write_text("red\ngreen\n")
    if told.get("samples"):
        given["samples"] = str(tmp_path / "strange")
        for name in ("red", "pink"):
            (tmp_path / "strange" / name).mkdir(parents=True)
            for number in range(2):
                Image.new("RGB", (20, 20), (number, 9, 9)).save(tmp_path / "strange" / name / f"{number}.png")
    with pytest.raises((ConfigError, DataError, ArtifactError), match="(?s)" + reason) as caught:
        imported(model, tmp_path, **given)
    assert reason in str(caught.value)
    assert not (tmp_path / "runs" / "m" / "bundle").exists()


@pytest.mark.parametrize("name", ["model.pth", "model.pt2", "absent.onnx"])
def test_what_unpickles_or_is_not_there_is_no_model(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name != "absent.onnx":
        path.write_bytes(b"whatever")
    with pytest.raises(ArtifactError):
        imported(path, tmp_path)


def test_a_file_that_is_no_onnx_is_the_users_error(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"nonsense")
    with pytest.raises(ArtifactError, match="ONNX"):
        imported(path, tmp_path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [("colur = 'bgr'", "did you mean 'colour'"), ("std = [0, 1, 1]", "deviations"), ("scale = -1", "greater than 0")],
)
def test_a_declaration_that_means_nothing_is_refused(text: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "told.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        declared.declared(str(path)).preprocess(SIDE)
    assert reason in str(caught.value)


def test_caffes_declaration_is_bgr_less_its_mean() -> None:
    made = declared.NAMED["caffe"].preprocess(224)
    np.testing.assert_allclose(np.array(made.mean) * 255, [123, 117, 104])
    np.testing.assert_allclose(np.array(made.std) * 255, [1, 1, 1])
    assert (made.resize, made.crop) == (256, 224)
