"""INT8 for ONNX Runtime: QDQ, unsigned activations, signed weights per channel, logits in floating point."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchstone.compress.int8 import bias_onnx, onnx_graph
from torchstone.compress.int8.shared import CHUNK, needs_reduced_range, quiet
from torchstone.core.values import Artifact

REQUIRES = ("onnxruntime", "onnx")
OPTIONS = {"calibration": ("minmax", "entropy", "percentile"), "percentile": None, "bias": ("fast", "none")}

LAYERS = ("Conv", "Gemm", "MatMul")
"""Operators with weights: what can be put back to floating point."""
ENTROPY_BINS = 2048
"""Of a histogram whose tails are cut by entropy. ONNX Runtime's own 128 are as many as it divides into, so that it cuts
nothing."""


class Quantiser:
    """Makes INT8 models of one artifact, from one calibration on ``pixels``, uint8[n, H, W, 3]."""

    def __init__(self, artifact: Artifact, pixels: NDArray[np.uint8], config: Any) -> None:
        self._artifact, self._pixels, self._config = artifact, pixels, config

    def __enter__(self) -> Quantiser:
        import onnx

        self._scratch = tempfile.TemporaryDirectory(prefix="torchstone-")
        self._prepared = Path(self._scratch.name) / "prepared.onnx"
        self._ranges = Path(self._scratch.name) / "ranges.json"
        onnx_graph.prepare(self._artifact, self._prepared)
        self._graph = graph = onnx.load(str(self._prepared)).graph
        weights = {tensor.name: tensor for tensor in graph.initializer}
        found = [node for node in graph.node if node.op_type in LAYERS and weights.keys() & set(node.input)]
        self.layers = [node.name for node in found]
        """Names of what can be put back to floating point, in the order of the graph."""
        self._sizes = onnx_graph.of_sizes(graph)
        self.depthwise = [node.name for node in found if _depthwise(node, weights)]
        with quiet():
            self._calibrate()
            self._biases = self._corrections() if self._config.bias == "fast" else None
        return self

    def __exit__(self, *_: object) -> None:
        self._scratch.cleanup()

    def write(self, out_dir: Path, floating: Collection[str] = ()) -> None:
        """Write ``model.onnx``, in which the layers named in ``floating`` compute as before.

        Without VNNI, x86 adds pairs of products in 16 bits and saturates; weights then keep to 7 bits (reduce-range).
        """
        with quiet():
            source = self._prepared
            if self._biases is not None:
                source = self._prepared.with_name("corrected.onnx")
                self._biases.write(source, floating)
            self._quantise(source, out_dir / "model.onnx", floating)
            onnx_graph.free_logits(out_dir / "model.onnx")
            if floating:
                onnx_graph.hold(out_dir / "model.onnx", floating)

    def _corrections(self) -> bias_onnx.Biases:
        """Biases for the weights as they are when every layer is quantised."""
        whole = self._prepared.with_name("whole.onnx")
        self._quantise(self._prepared, whole, ())
        return bias_onnx.Biases(self._prepared, whole, self._pixels, self._artifact.input.name)

    def _quantise(self, source: Path, target: Path, floating: Collection[str]) -> None:
        from onnxruntime import quantization

        quantization.quantize_static(
            source,
            target,
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            reduce_range=needs_reduced_range(),
            calibrate_method=self._method(),
            calibration_cache_path=self._ranges,
            nodes_to_exclude=[*self._sizes, *floating, *onnx_graph.behind(self._graph, floating, self.layers)],
        )

    def _method(self) -> Any:
        from onnxruntime.quantization import CalibrationMethod

        methods = {
            "minmax": CalibrationMethod.MinMax,
            "entropy": CalibrationMethod.Entropy,
            "percentile": CalibrationMethod.Percentile,
        }
        return methods[self._config.calibration]

    def _calibrate(self) -> None:
        """Write the range of each activation where ``quantize_static`` looks for it. Called there, the calibration
        would hold the activations of all images in memory, and search too few bins."""
        from onnxruntime.quantization.calibrate import create_calibrator, save_tensors_data
        from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

        options = {
            "minmax": {},
            "entropy": {"num_bins": ENTROPY_BINS},
            "percentile": {"percentile": self._config.percentile},
        }
        calibrator = create_calibrator(
            self._prepared,
            list({*QLinearOpsRegistry, *QDQRegistry}),
            augmented_model_path=str(self._prepared.with_name("augmented.onnx")),
            calibrate_method=self._method(),
            extra_options=options[self._config.calibration],
        )
        for start in range(0, len(self._pixels), CHUNK):
            calibrator.collect_data(self._images(self._pixels[start : start + CHUNK]))
        save_tensors_data(calibrator.compute_data(), self._ranges)

    def _images(self, pixels: NDArray[np.uint8]) -> Any:
        from onnxruntime.quantization import CalibrationDataReader

        name = self._artifact.input.name

        class Images(CalibrationDataReader):
            def __init__(self) -> None:
                self.rows: Iterator[int] = iter(range(len(pixels)))

            def get_next(self) -> Any:  # None when there are no more
                row = next(self.rows, None)
                return None if row is None else {name: pixels[row : row + 1]}

        return Images()


def _depthwise(node: Any, weights: Mapping[str, Any]) -> bool:
    """A filter is [out, in a group, height, width]."""
    groups = next((it.i for it in node.attribute if it.name == "group"), 1)
    filters = weights.get(node.input[1])
    return node.op_type == "Conv" and groups > 1 and filters is not None and filters.dims[1] == 1
