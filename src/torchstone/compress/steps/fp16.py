"""Weights stored in half precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from torchstone.core.artifact import identified
from torchstone.core.contracts import Step, StepContext
from torchstone.core.errors import ChainError
from torchstone.core.values import Artifact

SMALLEST = 64
"""Values of a tensor that is worth halving: one more node for less costs more bytes than it saves."""


class Fp16(Step):
    """The weights are stored as float16 (ten bits of mantissa) and the file is half as large; that is all a CPU gains.

    The arithmetic stays float32: neither runtime computes convolutions in float16 on x86, so the weights are widened
    when the model is opened. Where BF16 arithmetic pays, ``bf16`` gives the same file size and the speed as well.
    """

    version = 2
    accepts = ("onnx", "openvino")
    targets = ("onnxruntime", "openvino")
    free = True
    final = True
    place = "arithmetic"

    def requires_for(self, target: str | None) -> tuple[str, ...]:
        return ("openvino",) if target == "openvino" else ("onnxruntime", "onnx")

    def apply(
        self, artifact: Artifact, context: StepContext, config: Any, target: str | None, out_dir: Path
    ) -> Artifact:
        from torchstone.runtimes import parity

        if artifact.format == "openvino":
            from torchstone.runtimes.openvino import save_halved

            save_halved(artifact.directory / "model.xml", out_dir / "model.xml")
        else:
            _halve(artifact, out_dir / "model.onnx")
        return parity.proven(artifact, identified(artifact, out_dir), "float16 weights", parity.HALVED)


def _halve(artifact: Artifact, path: Path) -> None:
    """Write the artifact's ONNX graph with its large tensors in float16, each behind a Cast that a runtime folds away
    when it opens the file."""
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(str(artifact.directory / "model.onnx"))
    graph = model.graph
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or np.prod(tensor.dims) < SMALLEST:
            continue
        values, name = numpy_helper.to_array(tensor), tensor.name
        if np.abs(values).max() > np.finfo(np.float16).max:
            raise ChainError(
                f"'{name}' of '{artifact.architecture}' holds values that float16 does not have",
                hint="bf16 has the range of float32",
            )
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}/float16"))
        casts.append(helper.make_node("Cast", [tensor.name], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save(model, str(path))
