"""Static INT8 for ONNX Runtime: QDQ, unsigned activations, signed weights per channel."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchstone.core import machine
from torchstone.core.values import Artifact


def quantise(artifact: Artifact, pixels: NDArray[np.uint8], config: Any, out_dir: Path) -> None:
    """Write ``model.onnx`` calibrated on ``pixels``, uint8[n, H, W, 3].

    Without VNNI, x86 adds pairs of products in 16 bits and saturates; weights then keep to 7 bits (reduce-range).
    """
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Images(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.rows: Iterator[int] = iter(range(len(pixels)))

        def get_next(self) -> Any:  # None when there are no more
            row = next(self.rows, None)
            return None if row is None else {artifact.input.name: pixels[row : row + 1]}

    methods = {
        "minmax": quantization.CalibrationMethod.MinMax,
        "entropy": quantization.CalibrationMethod.Entropy,
        "percentile": quantization.CalibrationMethod.Percentile,
    }
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings(), _quiet_root_logger():
        warnings.simplefilter("ignore")
        prepared = Path(scratch) / "prepared.onnx"
        quant_pre_process(artifact.directory / "model.onnx", prepared, skip_symbolic_shape=True)
        quantization.quantize_static(
            prepared,
            out_dir / "model.onnx",
            Images(),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            reduce_range=_needs_reduced_range(),
            calibrate_method=methods[config.calibration],
        )


def _needs_reduced_range() -> bool:
    flags = machine.cpu_flags()
    return "avx2" in flags and not {"avx512_vnni", "avx_vnni", "amx_int8"} & flags


class _quiet_root_logger:  # noqa: N801 (used as a function)
    """Without the advice that the quantiser logs about models it has just prepared itself."""

    def __enter__(self) -> None:
        self.level = logging.root.level
        logging.root.setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        logging.root.setLevel(self.level)
