"""An ONNX graph before it is quantised by ONNX Runtime, and after."""

from __future__ import annotations

from pathlib import Path

from torchstone.compress.int8.shared import quiet
from torchstone.core.values import Artifact


def prepare(artifact: Artifact, path: Path) -> None:
    """Write the artifact's graph as a quantiser wants it: simplified, and with all shapes."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with quiet():
        quant_pre_process(artifact.directory / "model.onnx", path, skip_symbolic_shape=True)


def free_logits(path: Path) -> None:
    """Take the rounding of the model's output out of its file: of 256 steps, two classes often share one, and the
    first would win."""
    import onnx

    model = onnx.load(str(path))
    graph = model.graph
    made_by = {name: node for node in graph.node for name in node.output}
    for output in graph.output:
        restored = made_by[output.name]
        rounded = made_by.get(restored.input[0]) if restored.op_type == "DequantizeLinear" else None
        if rounded is None or rounded.op_type != "QuantizeLinear":
            continue
        source = rounded.input[0]
        graph.node.remove(restored)
        graph.node.remove(rounded)
        for node in graph.node:
            for names in (node.input, node.output):
                for place, name in enumerate(names):
                    if name == source:
                        names[place] = output.name
    onnx.save(model, str(path))
