"""TensorFlow Lite files: float and quantised, for any number of images, whatever the file allows at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from torchstone.core.errors import ArtifactError
from torchstone.core.values import Artifact, InputSpec, RuntimeOptions
from torchstone.runtimes import golden, open_artifact

pytest.importorskip("ai_edge_litert", reason="no TensorFlow Lite runtime")
CLASSES = 10
SIDE = 32


def tensor(schema: Any, name: str, shape: list[int], kind: int, buffer: int, scale: float = 0, zero: int = 0) -> Any:
    made = schema.TensorT()
    made.name, made.shape, made.type, made.buffer = name.encode(), shape, kind, buffer
    if scale:
        made.quantization = schema.QuantizationParametersT()
        made.quantization.scale, made.quantization.zeroPoint = [scale], [zero]
    return made


OUT = 4.0
"""A step of the quantised scores."""


def written(path: Path, weights: np.ndarray, *, whole: bool, out: tuple[float, int] = (OUT, 128)) -> Path:
    """The mean of each colour times ``weights``, float32[3, CLASSES], as a file: mean, then fully connected. ``whole``:
    bytes in and bytes out, the scores in steps of ``out``."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema  # pyright: ignore[reportMissingImports]

    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version = 3
    codes = []
    for operator in (schema.BuiltinOperator.MEAN, schema.BuiltinOperator.FULLY_CONNECTED):
        code = schema.OperatorCodeT()
        code.builtinCode, code.version = operator, 2 if whole else 1
        code.deprecatedBuiltinCode = operator
        codes.append(code)
    model.operatorCodes = codes
    floats, bytes_, ints = schema.TensorType.FLOAT32, schema.TensorType.UINT8, schema.TensorType.INT32
    step = float(np.abs(weights).max() / 127)
    stored = np.clip(np.round(weights / step) + 128, 0, 255).astype(np.uint8) if whole else weights
    contents = [b"", np.array([1, 2], np.int32).tobytes(), np.ascontiguousarray(stored.T).tobytes()]
    model.buffers = []
    for content in contents:
        buffer = schema.BufferT()
        buffer.data = list(content) or None
        model.buffers.append(buffer)
    kind = bytes_ if whole else floats
    graph.tensors = [
        tensor(schema, "image", [1, SIDE, SIDE, 3], kind, 0, 1.0 if whole else 0),
        tensor(schema, "axes", [2], ints, 1),
        tensor(schema, "mean", [1, 3], kind, 0, 1.0 if whole else 0),
        tensor(schema, "weights", [CLASSES, 3], kind, 2, step if whole else 0, 128),
        tensor(schema, "scores", [1, CLASSES], kind, 0, out[0] if whole else 0, out[1]),
    ]
    graph.inputs, graph.outputs, graph.operators = [0], [4], []
    for index, (inputs, output) in enumerate((([0, 1], 2), ([2, 3, -1], 4))):
        node = schema.OperatorT()
        node.opcodeIndex, node.inputs, node.outputs = index, inputs, [output]
        if index == 0:
            node.builtinOptionsType, node.builtinOptions = (
                schema.BuiltinOptions.ReducerOptions,
                schema.ReducerOptionsT(),
            )
            node.builtinOptions.keepDims = False
        else:
            node.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
            node.builtinOptions = schema.FullyConnectedOptionsT()
        graph.operators.append(node)
    model.subgraphs = [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


@pytest.fixture(scope="module")
def weights() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(3, CLASSES)).astype(np.float32)


def artifact_of(path: Path, like: Artifact, spec: InputSpec) -> Artifact:
    return like.model_copy(
        update={"directory": path.parent, "format": "tflite", "files": {path.name: ""}, "input": spec}
    )


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch", [1, 7])
def test_a_float_file_answers_any_number_of_images(
    batch: int, threads: int, weights: np.ndarray, lenet5: dict[str, Artifact], pixels: np.ndarray, tmp_path: Path
) -> None:
    path = written(tmp_path / "model.tflite", weights, whole=False)
    artifact = artifact_of(path, lenet5["onnx"], InputSpec(dtype="float32", normalised=False))
    runner = open_artifact(artifact, RuntimeOptions(batch=batch, threads=threads))
    expected = (pixels.astype(np.float64).mean((1, 2)) / 127.5 - 1) @ weights
    for count in (1, 6, 7, 8, 40):
        assert golden.difference(runner(pixels[:count])["logits"], expected[:count].astype(np.float32)) < 1e-5


def test_a_file_of_bytes_is_given_bytes_and_its_steps_are_undone(
    weights: np.ndarray, lenet5: dict[str, Artifact], pixels: np.ndarray, tmp_path: Path
) -> None:
    path = written(tmp_path / "model.tflite", weights, whole=True)
    artifact = artifact_of(path, lenet5["onnx"], InputSpec(dtype="uint8"))
    found = open_artifact(artifact)(pixels)["logits"]
    expected = pixels.astype(np.float64).mean((1, 2)) @ weights
    inside = np.clip(expected, -128 * OUT, 127 * OUT)  # beyond, the file has no more steps
    assert np.abs(found - inside).max() < 2.5 * OUT


def test_nothing_is_left_of_the_call_before(
    weights: np.ndarray, lenet5: dict[str, Artifact], pixels: np.ndarray, tmp_path: Path
) -> None:
    path = written(tmp_path / "model.tflite", weights, whole=False)
    runner = open_artifact(artifact_of(path, lenet5["onnx"], InputSpec(dtype="float32", normalised=False)))
    first = runner(pixels[:1])["logits"]
    before = first.copy()
    runner(pixels[20:21])
    assert np.array_equal(first, before)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x1c\x00\x00\x00TFL3"])
def test_a_damaged_file_is_the_users_error(content: bytes, lenet5: dict[str, Artifact], tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"model\.tflite"):
        open_artifact(artifact_of(path, lenet5["onnx"], InputSpec(dtype="uint8")))


def test_a_quantised_softmax_is_known_by_its_steps(weights: np.ndarray, tmp_path: Path) -> None:
    from torchstone.export.foreign import tflite_file

    told = tflite_file.describe(written(tmp_path / "model.tflite", weights, whole=True), None, None)
    assert (told.output.kind, told.outputs, told.side) == ("logits", CLASSES, SIDE)
    assert (told.input.dtype, told.input.normalised) == ("uint8", True)
    pressed = written(tmp_path / "pressed.tflite", weights, whole=True, out=(1 / 256, 0))
    assert tflite_file.describe(pressed, None, None).output.kind == "probabilities"
