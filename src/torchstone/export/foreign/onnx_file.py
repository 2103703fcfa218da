"""An ONNX file from elsewhere: its graph is given the beginning that ours have. All that follows is then the same."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchstone.core.artifact import identified
from torchstone.core.errors import ArtifactError, nearest
from torchstone.core.values import Artifact, InputSpec, OutputSpec, RuntimeOptions
from torchstone.export.foreign import Described, square
from torchstone.runtimes import adapt
from torchstone.runtimes.onnxruntime import open_session

OPSET = 17
"""Graphs of earlier operator sets are converted to it; quantisers want at least 13."""
IR = 8
RESHAPE_COPIES = 0
"""In a Reshape's shape: as long as that side of the input."""


def describe(path: Path, layout: str | None, output: str | None) -> Described:
    """What the graph says of itself. ``layout`` where its input's shape does not tell, ``output`` where it has several.

    Raises an ArtifactError for a graph that is no classifier of images.
    """
    model = _load(path)
    image = _image(path, model)
    shape = _shape(image)
    found = _layout(path, shape, layout)
    scores = _scores(path, model, output)
    ends = _shape(scores)
    element = image.type.tensor_type.elem_type
    names = {1: "float32", 10: "float16", 2: "uint8"}
    if element not in names:
        raise ArtifactError(
            f"the input '{image.name}' of '{path}' takes ONNX type {element}",
            hint="images are float32, float16 or uint8",
        )
    opset = _opset(model)
    return Described(
        format="onnx",
        input=InputSpec(
            name=image.name, layout=found, dtype="uint8" if element == 2 else "float32", normalised=element == 2
        ),
        side=square(path, *(shape[2:4] if found == "NCHW" else shape[1:3])),
        output=OutputSpec(name=scores.name),
        outputs=ends[1] if len(ends) > 1 else None,
        notes=(f"ONNX opset {opset}, {names[element]}, {found}, from {model.producer_name or 'an unnamed tool'}",),
    )


def adopted(path: Path, artifact: Artifact, directory: Path) -> Artifact:
    """The file as an artifact in ``directory``: one file, any number of images, float32 inside. Half precision is
    widened, which CPUs do anyway; a Softmax at the end is left out, since logits are what is compared and quantised."""
    import onnx

    model = _load(path)
    _without_constants_among_inputs(model)
    output = _unpressed(model, artifact.output)
    model = _raised(path, model)
    _widen(model)
    _any_number_of_images(model, artifact.input.name)
    _name_nodes(model)
    model.ir_version = max(model.ir_version, IR)
    onnx.save(model, str(directory / "model.onnx"))
    made = artifact.model_copy(update={"output": output})
    return identified(made, directory)


def answered(path: Path, artifact: Artifact, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the file itself, as it came, says of these images, one at a time: float32[N, …]."""
    session = open_session(path, RuntimeOptions())
    image = next(one for one in session.get_inputs() if one.name == artifact.input.name)
    kind = np.float16 if "float16" in image.type else None
    found = []
    for row in range(len(pixels)):
        given = adapt.to_input(pixels[row : row + 1], artifact)
        found.append(session.run([artifact.output.name], {image.name: given.astype(kind or given.dtype)})[0])
    return np.concatenate(found).astype(np.float32)


def baked(artifact: Artifact, directory: Path) -> Artifact:
    """``artifact`` with its preprocessing inside: uint8[N, H, W, 3] in RGB goes in, as into our own exports."""
    import onnx
    from onnx import helper, numpy_helper

    if artifact.input.dtype == "uint8":  # it normalises bytes by itself, in whatever order it wants them
        shutil.copy2(artifact.directory / "model.onnx", directory / "model.onnx")
        return identified(artifact, directory)
    model = onnx.load(str(artifact.directory / "model.onnx"))
    graph, spec, crop = model.graph, artifact.input, artifact.preprocess.crop
    names = {name for node in graph.node for name in (*node.input, *node.output)}
    image = "image"
    while image in names:
        image += "_"
    mean, std = (np.array(values, np.float32) * 255 for values in (artifact.preprocess.mean, artifact.preprocess.std))
    tensors, nodes = [], [helper.make_node("Cast", [image], [f"{image}/float"], to=onnx.TensorProto.FLOAT)]
    at = f"{image}/float"

    def then(operator: str, name: str, *values: Any, **options: Any) -> None:
        nonlocal at
        given = [at]
        for value in values:
            tensors.append(numpy_helper.from_array(value, f"{image}/{name}/by"))
            given.append(tensors[-1].name)
        nodes.append(helper.make_node(operator, given, [f"{image}/{name}"], **options))
        at = f"{image}/{name}"

    axis = 3
    if spec.layout == "NCHW":
        nodes[0] = helper.make_node("Transpose", [image], [f"{image}/turned"], perm=[0, 3, 1, 2])
        nodes.append(helper.make_node("Cast", [f"{image}/turned"], [at], to=onnx.TensorProto.FLOAT))
        axis = 1
    if spec.colour == "bgr":
        then("Gather", "bgr", np.array([2, 1, 0]), axis=axis)
        mean, std = mean[::-1], std[::-1]
    sides = (1, 3, 1, 1) if axis == 1 else (1, 1, 1, 3)
    if spec.normalised is False and mean.any():
        then("Sub", "less_mean", np.ascontiguousarray(mean).reshape(sides))
    if spec.normalised is False and (std != 1).any():
        then("Div", "normalised", np.ascontiguousarray(std).reshape(sides))
    nodes[-1].output[0] = spec.name
    kept = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *kept])
    graph.initializer.extend(tensors)
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info(image, onnx.TensorProto.UINT8, ["batch", crop, crop, 3]))
    onnx.checker.check_model(model)
    onnx.save(model, str(directory / "model.onnx"))
    return identified(artifact.model_copy(update={"input": InputSpec(name=image)}), directory)


def _load(path: Path) -> Any:
    """The model with its external weights, checked. An ArtifactError for what is no ONNX."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(str(path))
    except (DecodeError, OSError, ValueError, onnx.checker.ValidationError) as error:
        raise ArtifactError(
            f"'{path}' cannot be read as ONNX: {' '.join(str(error).split())[:300]}",
            hint="are its external weights, if it has any, beside it?",
        ) from None
    if not model.graph.node:
        raise ArtifactError(f"'{path}' holds no ONNX graph", hint="is it another kind of file?")
    return model


def _opset(model: Any) -> int:
    return next((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), OPSET)


def _shape(value: Any) -> list[int | None]:
    return [side.dim_value if side.HasField("dim_value") and side.dim_value > 0 else None
            for side in value.type.tensor_type.shape.dim]  # fmt: skip


def _image(path: Path, model: Any) -> Any:
    """The only input that is no weight."""
    weights = {tensor.name for tensor in model.graph.initializer}
    given = [one for one in model.graph.input if one.name not in weights]
    if len(given) != 1 or len(_shape(given[0])) != 4:
        shown = "; ".join(f"{one.name} {_shape(one)}" for one in given)
        raise ArtifactError(
            f"'{path}' takes {shown or 'nothing'}", hint="a classifier takes one batch of images, of four dimensions"
        )
    return given[0]


def _layout(path: Path, shape: Sequence[int | None], layout: str | None) -> Any:
    fits = [name for name, place in (("NCHW", 1), ("NHWC", 3)) if shape[place] == 3]
    if layout is not None and (not fits or layout in fits):
        return layout
    if len(fits) == 1 and layout is None:
        return fits[0]
    if layout is not None:
        raise ArtifactError(f"layout = {layout} is declared, and '{path}' takes {[*shape]}: {fits[0]}")
    raise ArtifactError(
        f"'{path}' takes {[*shape]}, which does not tell where its three colours are",
        hint='a file for --preprocess: layout = "NCHW", or "NHWC"',
    )


def _scores(path: Path, model: Any, output: str | None) -> Any:
    names = [one.name for one in model.graph.output]
    if output is not None:
        if output not in names:
            raise ArtifactError(f"'{path}' has no output '{output}'", hint=nearest(output, names))
        return model.graph.output[names.index(output)]
    if len(names) != 1:
        raise ArtifactError(f"'{path}' has {len(names)} outputs: {', '.join(names)}", hint="name one: --output NAME")
    return model.graph.output[0]


def _without_constants_among_inputs(model: Any) -> None:
    """Early graphs list their weights as inputs, too, so that no runtime may fold them."""
    weights = {tensor.name for tensor in model.graph.initializer}
    kept = [one for one in model.graph.input if one.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    model.ir_version = max(model.ir_version, 4)


def _raised(path: Path, model: Any) -> Any:
    from onnx import version_converter

    now = _opset(model)
    if now >= 13:
        return model
    try:
        return version_converter.convert_version(model, OPSET)
    except Exception as error:  # the converter raises RuntimeError, and errors of its own C++
        raise ArtifactError(
            f"'{path}' is of opset {now}, and cannot be converted to {OPSET}: {' '.join(str(error).split())[:200]}",
            hint="export it again with opset 13 or later",
        ) from None


def _widen(model: Any) -> None:
    """float16 → float32, everywhere: weights, casts, and what is declared of the values between."""
    from onnx import TensorProto, numpy_helper

    half, single = TensorProto.FLOAT16, TensorProto.FLOAT
    graph = model.graph

    def wide(tensor: Any) -> None:
        if tensor.data_type == half:
            values = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    for tensor in graph.initializer:
        wide(tensor)
    for node in graph.node:
        for option in node.attribute:
            if option.HasField("t"):
                wide(option.t)
            if option.name in ("to", "dtype") and option.i == half:
                option.i = single
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == half:
            value.type.tensor_type.elem_type = single


def _any_number_of_images(model: Any, image: str) -> None:
    """Free the first side of what goes in and comes out. A Reshape that says 'one image' says 'as many as came'."""
    from onnx import numpy_helper

    graph = model.graph
    given = next(one for one in graph.input if one.name == image)
    if _shape(given)[0] is None:
        return
    fixed = _shape(given)[0]
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    constants = {node.output[0]: node for node in graph.node if node.op_type == "Constant"}
    for node in graph.node:
        if node.op_type != "Reshape":
            continue
        source = tensors.get(node.input[1])
        if source is None and node.input[1] in constants:
            source = next((one.t for one in constants[node.input[1]].attribute if one.name == "value"), None)
        if source is None:
            continue
        shape = numpy_helper.to_array(source).copy()
        if shape.size > 1 and shape[0] == fixed:
            shape[0] = RESHAPE_COPIES
            source.CopyFrom(numpy_helper.from_array(shape, source.name))
    del graph.value_info[:]
    for value in (given, *graph.output):
        first = value.type.tensor_type.shape.dim[0]
        first.Clear()
        first.dim_param = "batch"


def _name_nodes(model: Any) -> None:
    """Each operator gets a name of its own, by which quantisers tell layers apart; many tools write none."""
    seen: set[str] = set()
    for number, node in enumerate(model.graph.node):
        if not node.name or node.name in seen:
            node.name = f"{node.op_type}_{number}"
        seen.add(node.name)


def _unpressed(model: Any, output: OutputSpec) -> OutputSpec:
    """Leave out a Softmax over the classes that gives ``output``: what goes into it are the logits."""
    graph = model.graph
    last = next((node for node in graph.node if output.name in node.output), None)
    if last is None or last.op_type != "Softmax" or output.kind != "probabilities":
        return output
    scores = next(one for one in graph.output if one.name == output.name)
    unsaid = -1 if _opset(model) >= 13 else 1
    axis = next((one.i for one in last.attribute if one.name == "axis"), unsaid)
    if axis % len(_shape(scores)) != 1 or sum(output.name in node.input for node in graph.node):
        return output
    logits = last.input[0]
    made = next((node for node in graph.node if logits in node.output), None)
    if made is None:
        return output
    for node in graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                if name == logits:
                    names[place] = output.name
    graph.node.remove(last)
    return output.model_copy(update={"kind": "logits"})
