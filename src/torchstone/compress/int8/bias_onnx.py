"""Corrected biases of an ONNX graph."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchstone.compress.int8.bias import channel_sums, shift
from torchstone.compress.int8.shared import CHUNK

CORRECTED = ("Conv", "Gemm")
"""Operators that have a bias of their own."""


class Biases:
    """The biases of the float model ``prepared``, corrected for the weights of ``quantised``, its INT8 twin."""

    def __init__(self, prepared: Path, quantised: Path, pixels: NDArray[np.uint8], image: str) -> None:
        import onnx

        self._prepared = prepared
        model = onnx.load(str(prepared))
        rounded = _rounding(model.graph, onnx.load(str(quantised)).graph)
        means = _means(model, prepared, {name: node.input[0] for name, (node, _) in rounded.items()}, pixels, image)
        self._shifts = {name: _shift(node, change, means[name]) for name, (node, change) in rounded.items()}

    def write(self, path: Path, floating: Collection[str]) -> None:
        """Write the float model with all biases corrected but those of the layers in ``floating``."""
        import onnx
        from onnx import numpy_helper

        model = onnx.load(str(self._prepared))
        tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        for node in model.graph.node:
            shift = self._shifts.get(node.name)
            if shift is not None and node.name not in floating:
                bias = numpy_helper.to_array(tensors[node.input[2]])
                corrected = (bias - shift).astype(bias.dtype)
                tensors[node.input[2]].CopyFrom(numpy_helper.from_array(corrected, node.input[2]))
        onnx.save(model, str(path))


def _rounding(whole: Any, quantised: Any) -> dict[str, tuple[Any, NDArray[np.float64]]]:
    """name: the layer of the float graph, and how far rounding moved each of its weights; of those layers whose weights
    are rounded, and whose bias is their own."""
    from onnx import numpy_helper

    floats = {tensor.name: tensor for tensor in whole.initializer}
    tensors = {tensor.name: tensor for tensor in quantised.initializer}
    made_by = {name: node for node in quantised.node for name in node.output}
    after = {node.name: node for node in quantised.node if node.op_type in CORRECTED}
    users = [name for node in whole.node for name in node.input]
    found = {}
    for node in whole.node:
        twin = after.get(node.name)
        if twin is None or len(node.input) < 3 or node.input[1] not in floats or users.count(node.input[2]) != 1:
            continue
        restored = made_by.get(twin.input[1])
        if restored is None or restored.op_type != "DequantizeLinear" or node.input[2] not in floats:
            continue
        steps, scale, zero = (numpy_helper.to_array(tensors[name]).astype(np.float64) for name in restored.input[:3])
        axis = next((one.i for one in restored.attribute if one.name == "axis"), 1)
        shape = [-1 if place == axis % steps.ndim else 1 for place in range(steps.ndim)]
        if scale.size > 1:
            scale, zero = scale.reshape(shape), zero.reshape(shape)
        found[node.name] = node, (steps - zero) * scale - numpy_helper.to_array(floats[node.input[1]])
    return found


def _means(
    model: Any, prepared: Path, inputs: Mapping[str, str], pixels: NDArray[np.uint8], image: str
) -> dict[str, NDArray[np.float64]]:
    """layer: the mean of each channel of its input, over the images and their positions."""
    import onnx

    from torchstone.core.values import RuntimeOptions
    from torchstone.runtimes.onnxruntime import open_session

    if not inputs:  # no layer has a bias of its own, and a session that is asked for nothing gives everything
        return {}
    ranks = {info.name: len(info.type.tensor_type.shape.dim) for info in [*model.graph.value_info, *model.graph.input]}
    asked: dict[str, str] = {}
    for name in dict.fromkeys(inputs.values()):
        asked[name] = name
        if ranks.get(name) == 4:
            asked[name] = f"{name}/mean"
            model.graph.node.append(onnx.helper.make_node("GlobalAveragePool", [name], [asked[name]]))
    known = {output.name for output in model.graph.output}
    model.graph.output.extend(
        onnx.helper.make_empty_tensor_value_info(name) for name in asked.values() if name not in known
    )
    path = prepared.with_name("means.onnx")
    onnx.save(model, str(path))
    session = open_session(path, RuntimeOptions())
    sums: dict[str, NDArray[np.float64]] = {}
    for start in range(0, len(pixels), CHUNK):
        found = session.run(list(asked.values()), {image: pixels[start : start + CHUNK]})
        for name, values in zip(asked, found, strict=True):
            sums[name] = sums.get(name, 0.0) + channel_sums(values)
    return {layer: sums[name] / len(pixels) for layer, name in inputs.items()}


def _shift(node: Any, change: NDArray[np.float64], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """What the changed weights add to the mean of each output channel."""
    options = {one.name: one.i for one in node.attribute if one.name in ("group", "transB")}
    if node.op_type == "Gemm" and not options.get("transB"):
        change = change.T
    return shift(change, mean, options.get("group", 1))
