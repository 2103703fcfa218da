"""OpenVINO's own profile: the times of the executed nodes, and the shapes and types of its execution graph."""

from __future__ import annotations

import math
import statistics
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

from torchstone.core.contracts import Operator
from torchstone.core.errors import ConfigError
from torchstone.core.values import Artifact, RuntimeOptions
from torchstone.evaluate import graphs
from torchstone.runtimes import adapt

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CONVOLUTIONS = frozenset({"Convolution", "Deconvolution"})
BLOCKS = 8
COARSE_MS = 0.05
PRODUCTS = frozenset({"FullyConnected", "MatMul"})


class Openvino:
    """Reads the performance counters of a compiled model. What was fused into another node has no time of its own."""

    requires: ClassVar[tuple[str, ...]] = ("openvino",)

    def profile(
        self, artifact: Artifact, options: RuntimeOptions, pixels: NDArray[np.uint8], calls: int
    ) -> list[Operator]:
        from torchstone.runtimes.openvino import compile_model

        if options.provider != "cpu":
            raise ConfigError("only the CPU can be profiled", hint="open it with the provider cpu")
        path = adapt.model_file(artifact, ".xml" if artifact.format == "openvino" else ".onnx")
        compiled = compile_model(path, artifact, options, counters=True)
        request = compiled.create_infer_request()
        image = adapt.to_input(pixels, artifact)
        done, sums = 0, []
        for block in (1, *[max(1, calls // BLOCKS)] * BLOCKS):
            for _ in range(block):
                request.infer({0: image})
            done += block
            sums.append((done, _sums(request, done)))
        nodes = {node.get_friendly_name(): node for node in compiled.get_runtime_model().get_ordered_ops()}
        return [_operator(nodes[name], _typical(name, sums)) for name in sums[-1][1] if name in nodes]


def _sums(request: Any, calls: int) -> dict[str, float]:
    """Milliseconds of each executed node in all calls so far: the counters hold the mean of them all, the first and
    slowest one among them, in whole microseconds."""
    return {
        info.node_name: info.real_time.total_seconds() * 1000 * calls
        for info in request.profiling_info
        if info.status == info.Status.EXECUTED
    }


def _typical(name: str, sums: list[tuple[int, dict[str, float]]]) -> float:
    """Milliseconds of one call without the first: the first quartile of the blocks' means, since a mean takes all that
    interrupts it, or the mean of all blocks where the counters' rounding would show in a single one."""
    (first, start), (last, end) = sums[0], sums[-1]
    mean = (end[name] - start[name]) / (last - first)
    if mean < COARSE_MS:
        return max(0.0, mean)
    means = [(after[name] - before[name]) / (n - m) for (m, before), (n, after) in pairwise(sums)]
    return statistics.quantiles(means, n=4)[0]


def _operator(node: Any, ms: float) -> Operator:
    about = {key: _text(value) for key, value in node.get_rt_info().items()}
    kind = about["layerType"]
    read = [(one.get_element_type().get_type_name(), list(one.get_shape())) for one in node.inputs()]
    written = [(one.get_element_type().get_type_name(), list(one.get_shape())) for one in node.outputs()]
    macs = 0
    if len(read) > 1 and written:
        if kind in CONVOLUTIONS:
            macs = graphs.convolution_macs(written[0][1], read[1][1])
        elif kind in PRODUCTS:
            macs = graphs.product_macs(written[0][1], read[0][1])
        elif kind == "Subgraph":  # small products may be fused with what follows them; their factors are inputs of it
            factors = [shape for _, shape in read[1:] if len(shape) == 2 and min(shape) > 1]
            macs = written[0][1][0] * sum(math.prod(shape) for shape in factors)
    name = node.get_friendly_name()
    return Operator(
        name=name,
        layer=graphs.module_path(name),
        kind=kind,
        ms=ms,
        macs=macs,
        bytes=sum(graphs.size(*tensor) for tensor in (*read, *written)),
        precision=graphs.precision(about["runtimePrecision"]),
    )


def _text(value: Any) -> str:
    return str(getattr(value, "value", value))
