"""Static INT8 for OpenVINO by NNCF, on the OpenVINO graph."""

from __future__ import annotations

import io
import logging
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchstone.core.values import Artifact
from torchstone.runtimes.openvino import import_openvino


def quantise(artifact: Artifact, pixels: NDArray[np.uint8], config: Any, out_dir: Path) -> None:
    """Write ``model.xml`` and ``model.bin`` calibrated on ``pixels``, uint8[n, H, W, 3], with bias correction."""
    openvino = import_openvino()
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # 'no CUDA runtime', at every import
        import nncf

        nncf.set_log_level(logging.ERROR)
        model = openvino.Core().read_model(artifact.directory / "model.xml")
        presets = {"performance": nncf.QuantizationPreset.PERFORMANCE, "mixed": nncf.QuantizationPreset.MIXED}
        quantised = nncf.quantize(
            model,
            nncf.Dataset([pixels[row : row + 1] for row in range(len(pixels))]),
            preset=presets[config.preset],
            target_device=nncf.TargetDevice.CPU,
            subset_size=len(pixels),
        )
        openvino.save_model(quantised, out_dir / "model.xml", compress_to_fp16=False)
