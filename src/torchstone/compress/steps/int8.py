"""INT8 after training, calibrated on the calib images; each target has a back end of its own beside this folder."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from torchstone.core.artifact import identified
from torchstone.core.contracts import Step, StepConfig, StepContext
from torchstone.core.errors import ChainError
from torchstone.core.seeding import sample_rows
from torchstone.core.values import Artifact


class Int8(Step):
    """Weights and activations of convolutions and linear layers as 8-bit integers.

    ``@onnxruntime``: QDQ with unsigned activations and signed weights per channel, the only layout that is fast on
    x86. ``@openvino``: NNCF, whose ``performance`` preset is symmetric and whose ``mixed`` keeps activations
    asymmetric (slower, sometimes more accurate). Both calibrate by minimum and maximum unless asked otherwise.
    """

    version = 2
    accepts = ("onnx", "openvino")
    targets = ("onnxruntime", "openvino")
    value_option = "images"
    final = True

    class Config(StepConfig):
        images: int = Field(default=128, ge=8, description="calibration images; as many as there are, at most this")
        calibration: Literal["minmax", "entropy", "percentile"] = Field(
            default="minmax", description="of ONNX Runtime; NNCF always uses its own estimate of the range"
        )
        preset: Literal["performance", "mixed"] = Field(default="performance", description="of NNCF")

    def requires_for(self, target: str | None) -> tuple[str, ...]:
        return ("openvino", "nncf") if target == "openvino" else ("onnxruntime", "onnx")

    def check(self, config: Any, target: str | None) -> None:
        for option, its in (("calibration", "onnxruntime"), ("preset", "openvino")):
            if option in config.model_fields_set and target != its:
                raise ChainError(f"'int8@{target}' has no {option}", hint=f"it is an option of int8@{its}")

    def apply(
        self, artifact: Artifact, context: StepContext, config: Any, target: str | None, out_dir: Path
    ) -> Artifact:
        pixels = context.calib.images(sample_rows(context.calib.labels, config.images, "calibration"))
        back_end = importlib.import_module(f"torchstone.compress.int8.{target or self.targets[0]}")
        back_end.quantise(artifact, pixels, config, out_dir)
        return identified(artifact, out_dir)
