"""ONNX: uint8 NHWC in, normalisation inside the graph, logits out, any batch size, one file."""

from __future__ import annotations

import io
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from torchstone.core.artifact import identified
from torchstone.core.contracts import Step, StepConfig, StepContext
from torchstone.core.errors import ChainError
from torchstone.core.values import Artifact

OPSETS = {"trace": 17, "dynamo": 18}
"""The operator set of each exporter, unless another is asked for."""


class Onnx(Step):
    """Exports a torch artifact. The default exporter traces (1–3 s, and quantisers know its graphs); ``dynamo`` goes
    through torch.export (8–35 s). Any number of images, of one size: what follows from the size is computed here.

    Opset 17 has every operator that a CNN needs, and runtimes of 2022 open it already; ``dynamo`` begins at 18."""

    version = 3
    accepts = ("torch",)
    produces = "onnx"
    requires = ("torch", "safetensors", "onnx", "onnxscript", "onnxruntime")
    free = True

    class Config(StepConfig):
        opset: int | None = Field(
            default=None, ge=13, le=23, description="version of the operator set, by default 17; of dynamo 18 or more"
        )
        exporter: Literal["trace", "dynamo"] = Field(default="trace", description="how the graph is found")

    def check(self, config: Any, target: str | None) -> None:
        if config.exporter == "dynamo" and config.opset is not None and config.opset < OPSETS["dynamo"]:
            raise ChainError(
                f"'onnx' by dynamo has opset {OPSETS['dynamo']} and later, not {config.opset}",
                hint=f"onnx:opset={config.opset} alone traces",
            )

    def apply(
        self, artifact: Artifact, context: StepContext, config: Any, target: str | None, out_dir: Path
    ) -> Artifact:
        import torch

        from torchstone.export import shapes
        from torchstone.models import store
        from torchstone.runtimes import parity

        model = store.load(artifact)
        crop = artifact.preprocess.crop
        example = torch.zeros(2, crop, crop, 3, dtype=torch.uint8)
        noise, opset = io.StringIO(), config.opset or OPSETS[config.exporter]
        try:
            with warnings.catch_warnings(), redirect_stdout(noise), redirect_stderr(noise):
                warnings.simplefilter("ignore")
                _export(model, example, artifact, config.exporter, opset, out_dir / "model.onnx")
        except (RuntimeError, ValueError, torch.onnx.errors.OnnxExporterError) as error:
            raise ChainError(
                f"'{artifact.architecture}' cannot be exported to ONNX: {str(error).splitlines()[0]}",
                hint="try the other exporter: onnx:exporter=dynamo",
            ) from None
        shapes.fix(out_dir / "model.onnx", artifact.input.name, crop)
        child = identified(artifact.model_copy(update={"format": "onnx"}), out_dir)
        return parity.proven(artifact, child, f"ONNX opset {opset} by {config.exporter}")


def _export(model: Any, example: Any, artifact: Artifact, exporter: str, opset: int, path: Path) -> None:
    import torch

    names: dict[str, Any] = {"input_names": [artifact.input.name], "output_names": [artifact.output.name]}
    if exporter == "dynamo":
        batch = torch.export.Dim("batch")
        torch.onnx.export(
            model,
            (example,),
            path,
            dynamo=True,
            opset_version=opset,
            dynamic_shapes={"image": {0: batch}},
            external_data=False,
            verbose=False,
            **names,
        )
        return
    axes = {name: {0: "batch"} for name in (artifact.input.name, artifact.output.name)}
    torch.onnx.export(model, (example,), path, dynamo=False, opset_version=opset, dynamic_axes=axes, **names)
