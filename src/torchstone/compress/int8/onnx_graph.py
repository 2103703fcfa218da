"""An ONNX graph before it is quantised by ONNX Runtime, and after."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from torchstone.compress.int8.shared import quiet
from torchstone.core.values import Artifact

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto


def prepare(artifact: Artifact, path: Path) -> None:
    """Write the artifact's graph as a quantiser wants it: simplified, with all shapes, and with a name for each node,
    by which it can be left out: files of other tools have nodes without one."""
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with quiet():
        quant_pre_process(artifact.directory / "model.onnx", path, skip_symbolic_shape=True)
    model = onnx.load(str(path))
    name_all(model.graph)
    onnx.save(model, str(path))


def name_all(graph: GraphProto) -> None:
    """Name the nodes that have no name."""
    taken = {node.name for node in graph.node}
    for number, node in enumerate(graph.node):
        if not node.name:
            node.name = f"{node.op_type}_{number}"
            while node.name in taken:
                node.name += "_"


def of_sizes(graph: GraphProto) -> list[str]:
    """Names of the nodes that compute with sizes and not with images, as exporters write them for padding that depends
    on the size of the image. Rounded to 8 bits they would be other sizes."""
    fixed, sizes = {tensor.name for tensor in graph.initializer}, set[str]()
    found: list[str] = []
    for node in graph.node:
        given = [name for name in node.input if name and name not in fixed]
        if node.op_type in ("Shape", "Size") or (given and sizes.issuperset(given)):
            sizes.update(node.output)
            found.append(node.name)
        elif not given:
            fixed.update(node.output)
    return found


def behind(graph: GraphProto, floating: Collection[str], layers: Collection[str]) -> list[str]:
    """Names of what stands between the layers ``floating`` and the next of ``layers``: sums, products and means that
    would go on being rounded, so that a network with all its layers in floating point would still lose."""
    readers: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    found: dict[str, None] = {}
    ahead = [node for node in graph.node if node.name in floating]
    while ahead:
        for name in ahead.pop().output:
            for node in readers.get(name, ()):
                if node.name not in layers and node.name not in found:
                    found[node.name] = None
                    ahead.append(node)
    return list(found)


MEANS = ("ReduceMean", "Reshape")
"""What stands behind the logits where they are the mean over an image and its mirror image."""


def free_logits(path: Path) -> None:
    """Take the rounding of the model's output out of its file, and that of the logits which the output is the mean of:
    of 256 steps, two classes often share one, and the first would win."""
    import onnx

    model = onnx.load(str(path))
    graph = model.graph
    made_by = {name: node for node in graph.node for name in node.output}
    for output in graph.output:
        node = made_by.get(output.name)
        while node is not None:
            rounded = made_by.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
            if rounded is not None and rounded.op_type == "QuantizeLinear":
                source = rounded.input[0]
                graph.node.remove(node)
                graph.node.remove(rounded)
                _rename(graph, source, node.output[0])
                node = made_by.get(source)
            elif node.op_type in MEANS:
                node = made_by.get(node.input[0])
            else:
                break
    onnx.save(model, str(path))


def _rename(graph: GraphProto, name: str, to: str) -> None:
    for node in graph.node:
        for names in (node.input, node.output):
            for place, found in enumerate(names):
                if found == name:
                    names[place] = to


def hold(path: Path, layers: Collection[str]) -> None:
    """Let these layers stay in floating point where the file is opened.

    Between two roundings ONNX Runtime rounds the weights of such a layer itself, with one scale for the whole tensor
    (its optimiser WeightBiasQuantization): the layer that was left out for its accuracy would lose most of all. It does
    not where something stands between the layer and the rounding before it: here a Clip to the range that the values
    are of anyway, which changes none of them.
    """
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(str(path))
    graph = model.graph
    made_by = {name: node for node in graph.node for name in node.output}
    stored = {tensor.name: tensor for tensor in graph.initializer}
    for node in [node for node in graph.node if node.name in layers]:
        source = made_by.get(node.input[0])
        if source is None or source.op_type != "DequantizeLinear":
            continue
        scale, zero = (numpy_helper.to_array(stored[name]) for name in source.input[1:3])
        steps = np.iinfo(zero.dtype)
        edges = [f"{node.name}_{side}" for side in ("lowest", "highest")]
        for name, step in zip(edges, (steps.min, steps.max), strict=True):
            value = np.float32(step - int(zero)) * scale.astype(np.float32)
            graph.initializer.append(numpy_helper.from_array(value, name))
        held = f"{node.name}_held"
        clip = helper.make_node("Clip", [node.input[0], *edges], [held], name=held)
        graph.node.insert(list(graph.node).index(node), clip)
        node.input[0] = held
    onnx.save(model, str(path))
