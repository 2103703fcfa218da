"""Corrected biases of an OpenVINO graph."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchstone.compress.int8.bias import channel_sums, shift
from torchstone.runtimes.openvino import core, import_openvino

LAYERS = ("Convolution", "GroupConvolution", "MatMul")
"""Operators with weights: what can be put back to floating point."""
CONFIG = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}


class Biases:
    """The biases of the float model at ``path``, corrected for the weights of ``quantised``, its INT8 twin."""

    def __init__(self, path: Path, quantised: Any, pixels: NDArray[np.uint8]) -> None:
        model = core().read_model(path)
        layers = {name: layer for name, layer in _layers(model).items() if _bias(layer) is not None}
        rounded, whole = _weights(quantised, layers), _weights(model, layers)
        layers = {name: layer for name, layer in layers.items() if name in rounded}
        means = _means(model, layers, pixels)
        self._shifts = {name: _shift(layers[name], rounded[name] - whole[name], means[name]) for name in layers}

    def correct(self, model: Any, floating: Collection[str]) -> None:
        """Change the biases in ``model``, the float model read anew, but those of the layers in ``floating``."""
        from openvino import opset13 as ops

        for name, layer in _layers(model).items():
            place = _bias(layer) if name in self._shifts and name not in floating else None
            if place is not None:
                bias = place.get_source_output().get_node().data
                corrected = (bias - self._shifts[name].reshape(bias.shape)).astype(bias.dtype)
                place.replace_source_output(ops.constant(corrected).output(0))


def _layers(model: Any) -> dict[str, Any]:
    """name: node, of the layers with weights."""
    return {node.get_friendly_name(): node for node in model.get_ordered_ops() if node.get_type_name() in LAYERS}


def _bias(layer: Any) -> Any | None:
    """The input of the addition behind a layer that its bias comes in by: a constant with a number an output."""
    users = [user.get_node() for user in layer.output(0).get_target_inputs()]
    outputs = layer.output(0).get_partial_shape()[1]
    if len(users) != 1 or users[0].get_type_name() != "Add" or not outputs.is_static:
        return None
    for place in users[0].inputs():
        source = place.get_source_output().get_node()
        if source.get_type_name() == "Constant" and source.data.size == outputs.get_length():
            return place
    return None


def _weights(model: Any, wanted: Collection[str]) -> dict[str, NDArray[np.float64]]:
    """name: the weights that a layer multiplies with, [outputs, inputs of a group, …], after all rounding."""
    openvino = import_openvino()
    found = {name: layer for name, layer in _layers(model).items() if name in wanted}
    constants = openvino.Model([layer.input_value(1) for layer in found.values()], [])
    compiled = core().compile_model(constants, "CPU", CONFIG)
    answers = compiled({})
    return {
        name: _by_output(layer, np.asarray(answers[number], np.float64))
        for number, (name, layer) in enumerate(found.items())
    }


def _by_output(layer: Any, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    if layer.get_type_name() == "GroupConvolution":  # [groups, outputs of one, inputs of one, …]
        return weights.reshape(-1, *weights.shape[2:])
    if layer.get_type_name() == "MatMul" and not layer.get_attributes().get("transpose_b"):
        return weights.T
    return weights


def _means(model: Any, layers: dict[str, Any], pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float64]]:
    """layer: the mean of each channel of its input, over the images and their positions."""
    openvino = import_openvino()
    sources = {name: layer.input_value(0) for name, layer in layers.items()}
    places = {(source.get_node().get_friendly_name(), source.get_index()): source for source in sources.values()}
    seen = openvino.Model(list(places.values()), model.get_parameters())
    seen.reshape([1, *pixels.shape[1:]])
    request = core().compile_model(seen, "CPU", CONFIG).create_infer_request()
    sums: dict[tuple[str, int], NDArray[np.float64]] = {}
    for image in pixels:
        request.infer({0: image[None]})
        for number, key in enumerate(places):
            sums[key] = sums.get(key, 0.0) + channel_sums(request.get_output_tensor(number).data)
    return {
        name: sums[source.get_node().get_friendly_name(), source.get_index()] / len(pixels)
        for name, source in sources.items()
    }


def _shift(layer: Any, change: NDArray[np.float64], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """What the changed weights add to the mean of each output channel."""
    groups = layer.input_value(1).get_shape()[0] if layer.get_type_name() == "GroupConvolution" else 1
    return shift(change, mean, groups)
