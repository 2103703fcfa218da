"""OpenVINO's own format, in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torchstone.core.artifact import identified
from torchstone.core.contracts import Step, StepContext
from torchstone.core.values import Artifact


class Openvino(Step):
    """Converts an ONNX artifact to OpenVINO IR without halving its weights to FP16."""

    version = 2
    accepts = ("onnx",)
    produces = "openvino"
    requires = ("openvino",)
    free = True

    def apply(
        self, artifact: Artifact, context: StepContext, config: Any, target: str | None, out_dir: Path
    ) -> Artifact:
        from torchstone.runtimes import parity
        from torchstone.runtimes.openvino import import_openvino

        openvino = import_openvino()
        model = openvino.convert_model(artifact.directory / "model.onnx")
        openvino.save_model(model, out_dir / "model.xml", compress_to_fp16=False)
        child = identified(artifact.model_copy(update={"format": "openvino"}), out_dir)
        return parity.proven(artifact, child, "float32 weights")
