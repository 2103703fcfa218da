"""LiteRT: TensorFlow Lite files, float and quantised, on the CPU (XNNPACK)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from torchstone.core.contracts import Runner
from torchstone.core.errors import ArtifactError
from torchstone.core.values import Artifact, Format, RuntimeOptions
from torchstone.runtimes import adapt

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Litert:
    """Opens ``model.tflite``, resized to ``options.batch`` images. Many such files say in a Reshape that there is one
    image, and cannot be resized: they answer one at a time.

    A quantised file rounds its scores to the 256 steps that it was given: those of two classes may be the same.
    """

    formats: ClassVar[tuple[Format, ...]] = ("tflite",)
    precisions: ClassVar[tuple[str, ...]] = ("f32",)
    requires: ClassVar[tuple[str, ...]] = ("ai_edge_litert",)
    fixed_batch: ClassVar[bool] = True

    def open(self, artifact: Artifact, options: RuntimeOptions) -> Runner:
        adapt.check("litert", self, artifact, options)
        if options.provider != "cpu":
            raise ArtifactError(
                f"runtime 'litert' runs on the CPU here, not on {options.provider}",
                hint="use onnxruntime or torch for an NVIDIA GPU, with CUDA or TensorRT",
            )
        path = adapt.model_file(artifact, ".tflite")
        try:
            interpreter = open_interpreter(path, options)
        except (RuntimeError, ValueError) as error:
            raise adapt.refused("litert", path, error) from error
        outputs = interpreter.get_output_details()
        if len(outputs) != 1:
            raise ArtifactError(f"'{path}' has {len(outputs)} outputs", hint="a classifier has one: its scores")
        return adapt.runner("litert", path, artifact, _forward(interpreter))


def open_interpreter(path: Path, options: RuntimeOptions) -> Any:
    """The model's interpreter, allocated for the options' batch, or for one image where the file allows no other."""
    interpreter = _allocated(path, options.threads, options.batch)
    return interpreter or _allocated(path, options.threads, 1, strict=True)


def _allocated(path: Path, threads: int, batch: int, *, strict: bool = False) -> Any:
    """None where the file cannot answer ``batch`` images at once; with ``strict`` what it raises. An interpreter that
    failed once is of no more use, so each attempt has its own."""
    from ai_edge_litert.interpreter import Interpreter  # pyright: ignore[reportMissingImports]

    interpreter = Interpreter(model_path=str(path), num_threads=threads)
    image = interpreter.get_input_details()[0]
    try:
        interpreter.resize_tensor_input(image["index"], [batch, *image["shape"][1:]], strict=False)
        interpreter.allocate_tensors()
        interpreter.invoke()
    except (RuntimeError, ValueError):
        if strict:
            raise
        return None
    found = int(interpreter.get_output_details()[0]["shape"][0])
    if found != batch and not strict:
        return None
    return interpreter


def _forward(interpreter: Any) -> adapt.Forward:
    image, scores = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    size = int(image["shape"][0])

    def fill(chunk: NDArray) -> NDArray:
        tensor = _quantised(chunk, image)
        if len(chunk) < size:
            tensor = np.concatenate([tensor, np.zeros((size - len(chunk), *chunk.shape[1:]), tensor.dtype)])
        interpreter.set_tensor(image["index"], tensor)
        interpreter.invoke()
        return _real(interpreter.get_tensor(scores["index"])[: len(chunk)], scores)

    return adapt.in_chunks(fill, size)


def _quantised(values: NDArray, tensor: Any) -> NDArray:
    """Real values as the tensor stores them. Bytes for a tensor of bytes are what it stores."""
    wanted = np.dtype(tensor["dtype"])
    if values.dtype == wanted or tensor["quantization"][0] == 0:
        return values.astype(wanted, copy=False)
    scale, zero = tensor["quantization"]
    limits = np.iinfo(wanted)
    real = values.astype(np.float32)
    return np.clip(np.round(real / scale) + zero, limits.min, limits.max).astype(wanted)


def _real(stored: NDArray, tensor: Any) -> NDArray:
    """What a tensor's steps stand for; of a float tensor a copy, which the next call leaves alone."""
    scale, zero = tensor["quantization"]
    if scale == 0:
        return stored.astype(np.float32)
    return (stored.astype(np.float32) - zero) * np.float32(scale)
