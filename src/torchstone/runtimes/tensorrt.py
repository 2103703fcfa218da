"""TensorRT, for NVIDIA GPUs: engines that ``tensorrt`` built on this machine."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from torchstone.core.contracts import Runner
from torchstone.core.errors import ArtifactError
from torchstone.core.values import Artifact, Format, RuntimeOptions
from torchstone.runtimes import adapt

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Tensorrt:
    """Opens ``model.engine``. Images and scores travel to the GPU and back in each call, as a server's do; there, they
    lie in PyTorch's memory."""

    formats: ClassVar[tuple[Format, ...]] = ("tensorrt",)
    precisions: ClassVar[tuple[str, ...]] = ("f32",)
    requires: ClassVar[tuple[str, ...]] = ("tensorrt", "torch")
    fixed_batch: ClassVar[bool] = False

    def open(self, artifact: Artifact, options: RuntimeOptions) -> Runner:
        adapt.check("tensorrt", self, artifact, options)
        reason = missing_gpu()
        if reason is not None:
            raise ArtifactError(f"an engine runs on a GPU: {reason}", hint="open the ONNX model that it was built from")
        tensorrt = import_tensorrt()
        path = adapt.model_file(artifact, ".engine")
        runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR))
        try:
            engine = runtime.deserialize_cuda_engine(path.read_bytes())
        except RuntimeError as error:
            raise adapt.refused("tensorrt", path, error) from error
        if engine is None:
            reason = "it was built by another TensorRT, for another GPU, or is damaged"
            raise adapt.refused("tensorrt", path, RuntimeError(reason))
        largest = int(engine.get_tensor_profile_shape(artifact.input.name, 0)[2][0])
        fill = _fill(engine, artifact.input.name, artifact.output.name)
        return adapt.runner("tensorrt", path, artifact, adapt.in_chunks(fill, largest))


def import_tensorrt() -> Any:
    """The module ``tensorrt``: by its name alone, since files of ours have that name, too."""
    return importlib.import_module("tensorrt")


def missing_gpu() -> str | None:
    """Why no engine can be built or run here, or None."""
    import torch

    if not torch.version.cuda:
        return "this PyTorch was built without CUDA"
    return None if torch.cuda.is_available() else "PyTorch finds no CUDA device here"


def _fill(engine: Any, image: str, scores: str) -> adapt.Forward:
    import torch

    context = engine.create_execution_context()
    stream = torch.cuda.Stream()

    def fill(chunk: NDArray) -> NDArray:
        with torch.cuda.stream(stream):
            given = torch.from_numpy(np.require(chunk, requirements=["C", "W"])).cuda(non_blocking=True)
            context.set_input_shape(image, tuple(given.shape))
            answered = torch.empty(tuple(context.get_tensor_shape(scores)), dtype=torch.float32, device="cuda")
            context.set_tensor_address(image, given.data_ptr())
            context.set_tensor_address(scores, answered.data_ptr())
            if not context.execute_async_v3(stream.cuda_stream):
                raise RuntimeError("TensorRT did not run the engine")
            found = answered.cpu()
        return found.numpy()

    return fill
