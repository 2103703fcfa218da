"""Does OpenVINO open a model, compute it right, and in which precisions can it run here?"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from torchstone.core.values import Finding
from torchstone.doctor import Machine

PRECISIONS = ("FP32", "FP16", "BF16", "INT8")


class Openvino:
    """One real compilation of a one-convolution model built in memory, at f32, and what the CPU plug-in offers."""

    requires: ClassVar[tuple[str, ...]] = ("openvino",)

    def run(self, context: Machine) -> list[Finding]:
        try:
            import openvino
            from openvino import opset13

            from torchstone.runtimes.openvino import core

            image = opset13.parameter([1, 1, 8, 8], np.float32)
            kernel = opset13.constant(np.ones((1, 1, 3, 3), np.float32))
            output = opset13.convolution(image, kernel, [1, 1], [0, 0], [0, 0], [1, 1])
            compiled = core().compile_model(
                openvino.Model([output], [image]),  # pyright: ignore[reportCallIssue, reportGeneralTypeIssues]
                "CPU",
                {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1},
            )
            result = compiled(np.ones((1, 1, 8, 8), np.float32))[0]
            can = core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
            default = core().get_property("CPU", "INFERENCE_PRECISION_HINT").get_type_name()
        except Exception as error:  # whatever a broken build raises is the finding
            return [_broken(f"cannot run one convolution: {type(error).__name__}: {error}")]
        if result.shape != (1, 1, 6, 6) or not (result == 9).all():
            return [_broken(f"computes {result.ravel()[0]} where the answer of a convolution is 9")]
        precisions = [precision for precision in PRECISIONS if precision in can]
        own = "" if default == "f32" else f"; left to itself it runs FP32 models in {default}, torchstone asks for f32"
        return [
            Finding(
                check="openvino",
                severity="info",
                message=f"OpenVINO {openvino.__version__.partition('-')[0]} opened a model of 1 operator and computed "
                f"it right; this CPU runs {', '.join(precisions)}{own}",
                evidence={"version": openvino.__version__, "precisions": precisions, "default": default},
            )
        ]


def _broken(what: str) -> Finding:
    return Finding(
        check="openvino",
        severity="error",
        message=f"OpenVINO is installed but {what}",
        hint="pip install --force-reinstall --no-cache-dir openvino",
    )
