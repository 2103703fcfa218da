"""INT8 for OpenVINO by NNCF, on the OpenVINO graph."""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Collection
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchstone.compress.int8 import bias_openvino
from torchstone.compress.int8.bias_openvino import LAYERS
from torchstone.compress.int8.shared import needs_reduced_range
from torchstone.core.values import Artifact
from torchstone.runtimes.openvino import core, import_openvino, signal_stack_kept

REQUIRES = ("openvino", "nncf")
CALIBRATIONS = {"minmax": None, "histogram": "HISTOGRAM"}
"""Names of NNCF's sets of range estimators; None: its own choice."""
OPTIONS = {"preset": None, "bias": None, "calibration": tuple(CALIBRATIONS)}
COUNTED = re.compile(r"[A-Za-z]+_\d+")
"""A name that OpenVINO gives to a node that has none."""


class Quantiser:
    """Makes INT8 models of one artifact, calibrated on ``pixels``, uint8[n, H, W, 3]."""

    def __init__(self, artifact: Artifact, pixels: NDArray[np.uint8], config: Any) -> None:
        self._path, self._pixels, self._config = artifact.directory / "model.xml", pixels, config
        self._mirrored = artifact.mirrored

    def __enter__(self) -> Quantiser:
        model = core().read_model(self._path)
        found = [node for node in model.get_ordered_ops() if node.get_type_name() in LAYERS]
        self.layers = [node.get_friendly_name() for node in found]
        """Names of what can be put back to floating point, in the order of the graph."""
        self.depthwise = [node.get_friendly_name() for node in found if _depthwise(node)]
        # NNCF would round the logits to 8 bits before their mean is taken, as it does before any other.
        means = [result.input_value(0).get_node() for result in model.get_results()] if self._mirrored else []
        self._means = [node.get_friendly_name() for node in means]
        self._biases = None
        if self._config.bias == "fast":  # one image: how weights are rounded depends on none
            self._biases = bias_openvino.Biases(self._path, self._quantised(model, self._pixels[:1], ()), self._pixels)
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open: NNCF calibrates anew for each model."""

    def write(self, out_dir: Path, floating: Collection[str] = ()) -> None:
        """Write ``model.xml`` and ``model.bin``, in which the layers named in ``floating`` compute as before.

        Without VNNI, x86 adds pairs of products in 16 bits and saturates; the weights of all layers then keep to 7 bits
        (NNCF's overflow fix). With it nothing saturates, and no layer gives up a bit: NNCF's default takes one from the
        first layer all the same.
        """
        openvino = import_openvino()
        model = core().read_model(self._path)
        if self._biases is not None:
            self._biases.correct(model, floating)
        made = _named(self._quantised(model, self._pixels, floating))
        openvino.save_model(made, out_dir / "model.xml", compress_to_fp16=False)

    @signal_stack_kept()
    def _quantised(self, model: Any, pixels: NDArray[np.uint8], floating: Collection[str]) -> Any:
        kept = [*floating, *_behind(model, floating), *self._means]
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # 'no CUDA runtime', at every import
            import nncf
            from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix
            from nncf.quantization.range_estimator import RangeEstimatorParameters, RangeEstimatorParametersSet

            nncf.set_log_level(logging.ERROR)
            presets = {"performance": nncf.QuantizationPreset.PERFORMANCE, "mixed": nncf.QuantizationPreset.MIXED}
            estimators = CALIBRATIONS[self._config.calibration]
            ranges = getattr(RangeEstimatorParametersSet, estimators) if estimators else RangeEstimatorParameters()
            return nncf.quantize(
                model,
                nncf.Dataset([pixels[row : row + 1] for row in range(len(pixels))]),
                preset=presets[self._config.preset],
                target_device=nncf.TargetDevice.CPU,
                subset_size=len(pixels),
                fast_bias_correction=False,
                ignored_scope=nncf.IgnoredScope(names=kept) if kept else None,
                advanced_parameters=AdvancedQuantizationParameters(
                    overflow_fix=OverflowFix.ENABLE if needs_reduced_range() else OverflowFix.DISABLE,
                    disable_bias_correction=self._config.bias != "accurate",
                    activations_range_estimator_params=ranges,
                ),
            )


def _named(model: Any) -> Any:
    """``model``, whose nodes that NNCF added are numbered from one on. OpenVINO counts through the whole process, so
    that the same model would be another file each time that it is made."""
    added = [node for node in model.get_ordered_ops() if COUNTED.fullmatch(node.get_friendly_name())]
    for number, node in enumerate(added, 1):
        node.set_friendly_name(f"{node.get_type_name()}/{number}")
    return model


def _depthwise(node: Any) -> bool:
    """A filter is [groups, out, in, height, width]."""
    return node.get_type_name() == "GroupConvolution" and node.input(1).get_partial_shape()[2].get_length() == 1


def _behind(model: Any, floating: Collection[str]) -> list[str]:
    """Names of what stands between these layers and the next: products, sums and means that NNCF would go on rounding,
    so that a network with all its layers in floating point would still lose."""
    found: dict[str, None] = {}
    ahead = [node for node in model.get_ordered_ops() if node.get_friendly_name() in floating]
    while ahead:
        for output in ahead.pop().outputs():
            for target in output.get_target_inputs():
                node = target.get_node()
                name = node.get_friendly_name()
                if node.get_type_name() not in (*LAYERS, "Result") and name not in found:
                    found[name] = None
                    ahead.append(node)
    return list(found)
