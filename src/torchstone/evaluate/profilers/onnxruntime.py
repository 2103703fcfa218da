"""ONNX Runtime's own profile: a JSON trace in which every node has its time, its shapes and its types."""

from __future__ import annotations

import math
import statistics
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torchstone.core import files
from torchstone.core.contracts import Operator
from torchstone.core.errors import ConfigError
from torchstone.core.values import Artifact, RuntimeOptions
from torchstone.evaluate import graphs
from torchstone.runtimes import adapt

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WEIGHT = {"QLinearConv": 3, "QLinearMatMul": 3, "QGemm": 3}
"""Which input is the second factor; 1 for all that are not named."""
PRODUCTS = frozenset({"Gemm", "MatMul", "FusedGemm", "FusedMatMul", "QGemm", "QLinearMatMul", "MatMulInteger"})
END = "_kernel_time"


class Onnxruntime:
    """Reads the trace of a session with profiling on. Convolutions in its blocked layout (NCHWc) are padded to blocks
    of channels, and their MACs are counted with the padding, because it is computed, too."""

    requires: ClassVar[tuple[str, ...]] = ("onnxruntime",)

    def profile(
        self, artifact: Artifact, options: RuntimeOptions, pixels: NDArray[np.uint8], calls: int
    ) -> list[Operator]:
        from torchstone.runtimes.onnxruntime import open_session

        if options.provider != "cpu":
            raise ConfigError("only the CPU can be profiled", hint="open it with the provider cpu")
        with tempfile.TemporaryDirectory(prefix="torchstone-") as scratch:
            path, prefix = adapt.model_file(artifact, ".onnx"), str(Path(scratch) / "profile")
            tensor = adapt.to_input(pixels, artifact)
            # Weights that were packed for the processor are missing from the trace: a second session has them all.
            whole = _traced(open_session(path, options, profile=f"{prefix}-shapes", packed=False), artifact, tensor, 1)
            events = _traced(open_session(path, options, profile=prefix), artifact, tensor, calls + 1)
        return _operators(events, {event["name"]: event["args"] for event in whole})


def _traced(session: Any, artifact: Artifact, tensor: NDArray[Any], calls: int) -> list[dict[str, Any]]:
    """The nodes' events of so many calls."""
    image = {session.get_inputs()[0].name: tensor}
    for _ in range(calls):
        session.run([artifact.output.name], image)
    trace = files.read_json(Path(session.end_profiling()))
    return [event for event in trace if event.get("cat") == "Node" and event["name"].endswith(END)]


def _operators(events: list[dict[str, Any]], whole: dict[str, dict[str, Any]]) -> list[Operator]:
    """One operator a node, in the order of its first event; the first call is left out. ``whole`` has what the nodes
    read and write."""
    nodes: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        nodes.setdefault(event["name"], []).append(event)
    return [
        _operator(name.removesuffix(END), whole[name], [event["dur"] / 1000 for event in same[1:]])
        for name, same in nodes.items()
    ]


def _operator(name: str, args: dict[str, Any], ms: list[float]) -> Operator:
    read = [next(iter(one.items())) for one in args["input_type_shape"] if one]
    written = [next(iter(one.items())) for one in args["output_type_shape"] if one]
    kind = args["op_name"]
    factor = WEIGHT.get(kind, 1)
    macs = 0
    if len(read) > factor and written:
        if "Conv" in kind:
            # The weight begins with the channels of the output, which come last where the layout is NHWC.
            macs = math.prod(written[0][1]) * math.prod(read[factor][1][1:])
        elif kind in PRODUCTS:
            macs = graphs.product_macs(written[0][1], read[0][1])
    return Operator(
        name=name,
        layer=graphs.module_path(name),
        kind=kind,
        ms=statistics.median(ms),
        macs=macs,
        bytes=sum(graphs.size(*tensor) for tensor in (*read, *written)),
        precision=graphs.precision(read[factor][0]) if macs else graphs.precision(written[0][0]) if written else "f32",
    )
