"""BF16 arithmetic with the same weights."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torchstone.core.artifact import identified
from torchstone.core.contracts import Step, StepContext
from torchstone.core.values import Artifact


class Bf16(Step):
    """Runs the network in BF16, eight bits of mantissa. Fast where the CPU has AVX512-BF16 or AMX, slower than
    float32 elsewhere. For OpenVINO the weights are stored as FP16, which halves the file."""

    version = 1
    accepts = ("openvino", "torch")
    targets = ("openvino", "torch")
    free = True
    final = True
    place = "arithmetic"

    def requires_for(self, target: str | None) -> tuple[str, ...]:
        return ("torch",) if target == "torch" else ("openvino",)

    def ranges(self, artifact: Artifact) -> Mapping[str, Any] | None:
        return {}

    def apply(
        self, artifact: Artifact, context: StepContext, config: Any, target: str | None, out_dir: Path
    ) -> Artifact:
        if artifact.format == "openvino":
            from torchstone.runtimes.openvino import save_halved

            save_halved(artifact.directory / "model.xml", out_dir / "model.xml")
        else:
            for name in artifact.files:
                shutil.copy2(artifact.directory / name, out_dir / name)
        return identified(artifact.model_copy(update={"precision": "bf16"}), out_dir)
