"""Arithmetic on shapes in an exported ONNX graph: what follows from the size of the image alone becomes a number.

A graph takes any number of images, all of one size. A tracer writes both alike, as operators on ``Shape``: of a network
that pads by the size of what it sees (TensorFlow's 'same'), dozens of them, in floating point. A runtime computes them
again for each image, and a quantiser rounds them like any other sum, so that a layer is padded by one pixel too few.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchstone.core.values import RuntimeOptions

BATCHES = (1, 2)
"""Numbers of images whose shapes are compared: what differs depends on it."""


def fix(path: Path, image: str, crop: int) -> None:
    """Rewrite the model at ``path``, whose input ``image`` is uint8[N, crop, crop, 3]: what is computed from shapes
    and is the same for any number of images is stored, and what then serves nothing is left out."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(path))
    graph = model.graph
    fixed = _constants(model, path, image, crop)
    if not fixed:
        return
    nodes = [node for node in graph.node if not all(name in fixed for name in node.output)]
    used = {output.name for output in graph.output}
    kept: list[Any] = []
    for node in reversed(nodes):
        if used & set(node.output):
            kept.append(node)
            used |= set(node.input)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    tensors = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(tensors)
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in fixed.items() if name in used)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _constants(model: Any, path: Path, image: str, crop: int) -> dict[str, NDArray[Any]]:
    """name: value, of what is computed from shapes and constants alone and does not depend on the number of images."""
    import onnx

    from torchstone.runtimes.onnxruntime import open_session

    known = {tensor.name for tensor in model.graph.initializer} | {""}
    derived: list[str] = []
    for node in model.graph.node:
        if node.op_type == "Constant":
            known |= set(node.output)
        elif node.op_type == "Shape" or (set(node.input) & set(derived) and set(node.input) <= known | set(derived)):
            derived += node.output
    if not derived:
        return {}
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    shown.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in derived)
    scratch = path.with_suffix(".shapes")
    onnx.save(shown, str(scratch))
    try:
        session = open_session(scratch, RuntimeOptions())
        one, more = (session.run(derived, {image: np.zeros((count, crop, crop, 3), np.uint8)}) for count in BATCHES)
    finally:
        scratch.unlink()
    return {name: value for name, value, other in zip(derived, one, more, strict=True) if np.array_equal(value, other)}
