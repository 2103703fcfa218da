"""Dynamic quantisation: what most tutorials begin with."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from torchstone.core.artifact import identified
from torchstone.core.contracts import Step, StepContext
from torchstone.core.errors import ChainError
from torchstone.core.values import Artifact


class Dynamic(Step):
    """Weights of linear layers as 8-bit integers, their activations quantised anew for each image; no calibration.

    Made for networks that are mostly linear layers, such as transformers. A CNN spends its time in convolutions, which
    stay in float32: what gets smaller is the head (of ResNet-18 1.1 % of the weights), what gets faster is next to
    nothing, and each activation's range has to be found while somebody waits. The judge's verdict on a CNN is then
    'no gain': ``int8`` is the step that quantises all of it.
    """

    version = 1
    accepts = ("onnx",)
    targets = ("onnxruntime",)
    requires = ("onnxruntime", "onnx")
    final = True
    integers = True
    place = "arithmetic"

    def apply(
        self, artifact: Artifact, context: StepContext, config: Any, target: str | None, out_dir: Path
    ) -> Artifact:
        import onnx
        from onnxruntime import quantization

        from torchstone.compress.int8.onnx_graph import prepare
        from torchstone.compress.int8.shared import needs_reduced_range, quiet

        with tempfile.TemporaryDirectory(prefix="torchstone-") as scratch:
            prepared = Path(scratch) / "prepared.onnx"
            prepare(artifact, prepared)
            with quiet():
                quantization.quantize_dynamic(
                    prepared,
                    out_dir / "model.onnx",
                    op_types_to_quantize=["MatMul"],  # a Gemm is taken apart into one and an addition
                    per_channel=True,
                    reduce_range=needs_reduced_range(),
                    weight_type=quantization.QuantType.QInt8,
                )
        nodes = onnx.load(str(out_dir / "model.onnx")).graph.node
        if not any(node.op_type == "MatMulInteger" for node in nodes):
            raise ChainError(
                f"'dynamic' quantises linear layers, and '{artifact.architecture}' has none",
                hint="int8 quantises convolutions as well",
            )
        return identified(artifact, out_dir)
