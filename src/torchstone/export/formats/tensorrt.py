"""TensorRT engines, for NVIDIA GPUs. An engine is compiled on the GPU that runs it, by the version that opens it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from torchstone.core.artifact import identified
from torchstone.core.contracts import Step, StepConfig, StepContext
from torchstone.core.errors import ChainError
from torchstone.core.values import Artifact


class Tensorrt(Step):
    """Builds ``model.engine`` from an ONNX artifact, in float32 without TF32, for any number of images up to ``batch``.

    TensorRT takes bytes only where the first operator widens them, so that the widening goes before the transposition
    that our graphs begin with: the same numbers.
    """

    version = 1
    accepts = ("onnx",)
    produces = "tensorrt"
    requires = ("tensorrt", "torch", "onnx")
    free = True

    class Config(StepConfig):
        batch: int = Field(default=32, ge=1, description="images that the engine takes at most in one call")
        workspace_mb: int = Field(
            default=1024, ge=16, description="memory that its kernels may be chosen by, in 10⁶ bytes"
        )

    def apply(
        self, artifact: Artifact, context: StepContext, config: Any, target: str | None, out_dir: Path
    ) -> Artifact:
        from torchstone.runtimes import parity
        from torchstone.runtimes.tensorrt import missing_gpu

        reason = missing_gpu()
        if reason is not None:
            raise ChainError(
                f"'tensorrt' builds an engine on the GPU that runs it: {reason}", hint="build it on that machine"
            )
        engine = _built(widened_first(artifact.directory / "model.onnx"), artifact, config)
        (out_dir / "model.engine").write_bytes(engine)
        child = identified(artifact.model_copy(update={"format": "tensorrt"}), out_dir)
        return parity.proven(artifact, child, "TensorRT engine in float32")


def widened_first(path: Path) -> bytes:
    """The ONNX model of ``path`` with the Cast of its image before the Transpose, as its file's bytes."""
    import onnx

    model = onnx.load(str(path))
    graph = model.graph
    image = graph.input[0].name
    users = [node for node in graph.node if image in node.input]
    if len(users) == 1 and users[0].op_type == "Transpose":
        turned = users[0]
        casts = [node for node in graph.node if turned.output[0] in node.input]
        if len(casts) == 1 and casts[0].op_type == "Cast":
            cast = casts[0]
            turned_name, final = turned.output[0], cast.output[0]
            cast.input[0], cast.output[0] = image, turned_name
            turned.input[0], turned.output[0] = turned_name, final
            nodes = [cast if node is turned else turned if node is cast else node for node in list(graph.node)]
            copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
            del graph.node[:]
            graph.node.extend(copies)
    return model.SerializeToString()


def _built(model: bytes, artifact: Artifact, config: Any) -> bytes:
    """The engine's bytes. A ChainError with TensorRT's own words where it refuses the graph."""
    from torchstone.runtimes.tensorrt import import_tensorrt

    tensorrt = import_tensorrt()
    logger = tensorrt.Logger(tensorrt.Logger.ERROR)
    builder = tensorrt.Builder(logger)
    network = builder.create_network(0)
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse(model):
        reasons = "; ".join(str(parser.get_error(row)) for row in range(parser.num_errors))
        raise ChainError(f"TensorRT does not take '{artifact.architecture}': {reasons[:400]}", hint="keep it in ONNX")
    crop = artifact.preprocess.crop
    image = (crop, crop, 3)
    profile = builder.create_optimization_profile()
    profile.set_shape(artifact.input.name, (1, *image), (1, *image), (config.batch, *image))
    options = builder.create_builder_config()
    options.add_optimization_profile(profile)
    options.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, config.workspace_mb * 1_000_000)
    options.clear_flag(tensorrt.BuilderFlag.TF32)
    engine = builder.build_serialized_network(network, options)
    if engine is None:
        raise ChainError(f"TensorRT built no engine of '{artifact.architecture}'", hint="keep it in ONNX")
    return bytes(engine)
