"""INT8 in depth: calibration, bias correction, and layers that go back to floating point."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from built import answers, made, top1

from torchstone.compress import build, chain
from torchstone.compress.int8 import onnx_graph, rescue
from torchstone.compress.int8 import onnxruntime as back_end
from torchstone.compress.steps import int8
from torchstone.core import registry
from torchstone.core.artifact import identified
from torchstone.core.errors import ChainError
from torchstone.core.values import Artifact, Candidate
from torchstone.runtimes import open_artifact
from torchstone.runtimes.openvino import core, import_openvino
from torchstone.stages.compress import build_all, distinct, plan_all
from torchstone.stages.read import Data


def ranges(baseline: Candidate, data: Data, **options: Any) -> dict[str, tuple[float, float]]:
    """Of each activation, as calibrated on 40 images."""
    artifact = made("onnx", baseline, data).artifact
    pixels = data.sets(artifact, "calib")["calib"].images(slice(0, 40))
    config = registry.steps.get("int8").Config(**options)
    with back_end.Quantiser(artifact, pixels, config) as quantiser:
        found = json.loads(quantiser._ranges.read_text())  # pyright: ignore[reportPrivateUsage]
    return {name: tuple(_number(row[end]) for end in ("lowest", "highest")) for name, row in _rows(found).items()}  # pyright: ignore[reportReturnType]


def _rows(found: dict[str, Any]) -> dict[str, Any]:
    data = found["data"]
    return {name: row.get("data", row) for name, row in data.items()}


def _number(value: Any) -> float:
    return float(np.asarray(value["data"] if isinstance(value, dict) else value).ravel()[0])


@pytest.mark.parametrize("options", [{"calibration": "entropy"}, {"calibration": "percentile", "percentile": 99.0}])
def test_calibrations_cut_tails_that_minimum_and_maximum_keep(
    options: dict[str, Any], baseline: Candidate, data: Data
) -> None:
    whole, cut = ranges(baseline, data), ranges(baseline, data, **options)
    assert whole.keys() == cut.keys()
    width = {name: high - low for name, (low, high) in whole.items()}
    narrower = [name for name, (low, high) in cut.items() if high - low < 0.98 * width[name]]
    assert len(narrower) >= 3
    for name, (low, high) in cut.items():
        assert whole[name][0] - 1e-3 * width[name] <= low <= high <= whole[name][1] + 1e-3 * width[name]


@pytest.mark.parametrize(
    "text",
    [
        "int8:calibration=entropy",
        "int8:calibration=percentile",
        "int8:calibration=histogram@openvino",
        "int8:bias=none@onnxruntime",
        "int8:bias=none@openvino",
        "int8:bias=accurate@openvino",
    ],
)
def test_every_way_to_calibrate_keeps_the_accuracy(text: str, baseline: Candidate, data: Data) -> None:
    assert top1(answers(made(text, baseline, data), data)) >= top1(answers(baseline, data)) - 0.02


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("int8:bias=accurate@onnxruntime", "has no bias=accurate"),
        ("int8:calibration=histogram@onnxruntime", "has no calibration=histogram"),
        ("int8:calibration=entropy@openvino", "has no calibration=entropy"),
        ("int8:percentile=99.9", "which has no percentile"),
        ("int8:calibration=percentile,percentile=20", "percentile='20' is refused"),
        ("int8:max_drop=-1", "max_drop='-1' is refused"),
        ("int8:keep=2,max_drop=1", "both say how many layers"),
    ],
)
def test_options_that_mean_nothing_are_refused(text: str, problem: str) -> None:
    with pytest.raises(ChainError, match=problem):
        chain.plan(text, check_packages=False)


def test_val_is_seen_only_where_a_choice_is_made() -> None:
    asked = {text: chain.plan(text, check_packages=False).steps[-1] for text in ("int8", "int8:max_drop=1", "finetune")}
    wants = {text: planned.step.wants_val(planned.config) for text, planned in asked.items()}
    assert wants == {"int8": False, "int8:max_drop=1": True, "finetune": True}


both_back_ends = pytest.mark.parametrize(("form", "target"), [("onnx", "onnxruntime"), ("openvino", "openvino")])


def spoilt(baseline: Candidate, data: Data, form: str, place: Path) -> Any:
    """The artifact with one channel of the first convolution a thousand times as large, which the layer after it makes
    up for: the same answers in floating point, and ranges in which INT8 sees nothing of the other channels."""
    import onnx
    from onnx import numpy_helper

    place.mkdir()
    model = onnx.load(str(made("onnx", baseline, data).artifact.directory / "model.onnx"))
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    first, second = [node for node in model.graph.node if node.op_type == "Conv"][:2]

    def scale(name: str, axis: int, factor: float) -> None:
        values = numpy_helper.to_array(tensors[name]).copy()
        values[(slice(None),) * axis + (0,)] *= factor
        tensors[name].CopyFrom(numpy_helper.from_array(values, name))

    scale(first.input[1], 0, 1000.0)
    scale(first.input[2], 0, 1000.0)
    scale(second.input[1], 1, 0.001)
    path = place / "model.onnx"
    onnx.save(model, str(path))
    spoilt_one = identified(made("onnx", baseline, data).artifact, place)
    return converted(spoilt_one, form, place.with_name("converted"), baseline, data)


@both_back_ends
def test_the_layers_that_break_it_go_back_and_are_named(
    form: str, target: str, baseline: Candidate, data: Data, tmp_path: Path
) -> None:
    import onnx

    from torchstone.core.contracts import StepContext

    graph = onnx.load(str(made("onnx", baseline, data).artifact.directory / "model.onnx")).graph
    first, second = [node.name for node in graph.node if node.op_type == "Conv"][:2]
    artifact = spoilt(baseline, data, form, tmp_path / "spoilt")
    sets = data.sets(artifact, "train", "val", "calib")
    step = registry.steps.get("int8")

    def top1_on_val(one: Any) -> float:
        return rescue._top1(one, sets["val"])  # pyright: ignore[reportPrivateUsage]

    def run(**options: Any) -> Any:
        out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        out.mkdir()
        config = step.Config(**options)
        val = sets["val"] if step.wants_val(config) else None
        context = StepContext(
            train=sets["train"], calib=sets["calib"], val=val, seed=0, origin=artifact, cache=tmp_path,
            at=lambda _: context,
        )  # fmt: skip
        return step.apply(artifact, context, config, target, out)

    whole, plain, mended = top1_on_val(artifact), run(), run(max_drop=1.0)
    assert whole - top1_on_val(plain) > 1.0
    assert whole - top1_on_val(mended) <= 1.0
    note = mended.notes[-1]
    assert "in floating point: " in note
    named = note.partition("in floating point: ")[2].split(", ")
    assert second in named[0], "the layer whose input INT8 cannot see goes back first"
    assert all(first in name or second in name for name in named), "no layer goes back that was not spoilt"
    assert mended.size_mb < artifact.size_mb
    assert not any("hardly anything smaller" in note for note in mended.notes)
    nearly_all = run(keep=4)
    assert ("hardly anything smaller" in nearly_all.notes[-1]) is (nearly_all.size_mb >= 0.95 * artifact.size_mb)
    hollow = int8._weighed(artifact, mended, named)  # pyright: ignore[reportPrivateUsage]
    assert f"{artifact.size_mb:.2f} MB of {mended.size_mb:.2f}" in hollow.notes[-1]
    assert f"floating point ({len(named)})" in hollow.notes[-1]
    all_int8 = int8._weighed(artifact, mended, ())  # pyright: ignore[reportPrivateUsage]
    assert all_int8 == artifact, "a small file that INT8 makes larger is not for its floating layers so"

    kept = run(keep=2)
    assert whole - top1_on_val(kept) <= 1.0, "the two that were spoilt are found without a label"
    assert kept.notes[-1].partition("in floating point: ")[2].split(", ")[: len(named)] == named
    with pytest.raises(ChainError, match="50 layers asked"):
        run(keep=50)


def test_a_layer_in_floating_point_stays_so_where_the_file_is_opened(
    baseline: Candidate, data: Data, tmp_path: Path
) -> None:
    """ONNX Runtime would round the weights of a layer between two roundings itself, and say nothing."""
    import onnx
    import onnxruntime

    artifact = made("onnx", baseline, data).artifact
    pixels = data.sets(artifact, "calib")["calib"].images(slice(32))
    (planned,) = chain.plan("int8:bias=none@onnxruntime", start="onnx").steps
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "opened.onnx"), 4
    with back_end.Quantiser(artifact, pixels, planned.config) as quantiser:
        for number, layer in enumerate(quantiser.layers):
            place = tmp_path / str(number)
            place.mkdir()
            quantiser.write(place, [layer])
            onnxruntime.InferenceSession(str(place / "model.onnx"), options, providers=["CPUExecutionProvider"])
            graph = onnx.load(options.optimized_model_filepath).graph
            weights = next(node for node in graph.node if node.name == layer).input[1]
            stored = {tensor.name: tensor.data_type for tensor in graph.initializer}
            assert stored.get(weights) == onnx.TensorProto.FLOAT, f"{layer} was rounded when it was opened"


MOBILE = "student=timm/mobilenetv3_small_050:epochs=0"
"""A network with depthwise convolutions, as its weights were drawn."""


def rounded_layers(artifact: Artifact) -> dict[str, bool]:
    """Of each convolution whether it is depthwise, and its weights are stored as bytes."""
    if artifact.format == "onnx":
        import onnx

        graph = onnx.load(str(artifact.directory / "model.onnx")).graph
        stored = {tensor.name: tensor for tensor in graph.initializer}
        source = {name: node for node in graph.node for name in node.output}
        found: dict[str, bool] = {}
        for node in graph.node:
            if node.op_type == "Conv":
                made_by = source.get(node.input[1])
                weights = stored[made_by.input[0] if made_by is not None else node.input[1]]
                depthwise = weights.dims[1] == 1 and weights.dims[0] > 1
                found[f"{'depthwise' if depthwise else 'full'} {node.name}"] = (
                    weights.data_type == onnx.TensorProto.INT8
                )
        return found
    model = core().read_model(artifact.directory / "model.xml")
    return {
        f"{'depthwise' if node.get_type_name() == 'GroupConvolution' else 'full'} {node.get_friendly_name()}": (
            _stored_type(node) in ("i8", "u8")
        )
        for node in model.get_ordered_ops()
        if node.get_type_name() in ("Convolution", "GroupConvolution")
    }


def _stored_type(node: Any) -> str:
    """Of the constant from which a convolution's filters come."""
    while node.get_type_name() != "Constant":
        node = node.input_value(1 if "Convolution" in node.get_type_name() else 0).get_node()
    return node.get_output_element_type(0).get_type_name()


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
def test_depthwise_layers_stay_in_floating_point_where_that_is_asked(
    target: str, baseline: Candidate, data: Data
) -> None:
    whole = rounded_layers(made(f"{MOBILE}+int8:images=8@{target}", baseline, data).artifact)
    spared = rounded_layers(made(f"{MOBILE}+int8:images=8,depthwise=float@{target}", baseline, data).artifact)
    assert all(whole.values())
    assert whole.keys() == spared.keys()
    assert {name for name, rounded in spared.items() if not rounded} == {
        name for name in whole if name.startswith("depthwise")
    }


def test_a_network_without_depthwise_layers_is_told_so(
    baseline: Candidate, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("nothing is built before")

    monkeypatch.setattr(build, "candidate", never)
    with pytest.raises(ChainError, match="has no depthwise"):
        build_all(plan_all(["onnx", "int8:depthwise=float"]), baseline, data, seed=0)


def leaning(baseline: Candidate, data: Data, place: Path) -> Any:
    """The artifact with a head whose weights all round the same way: in each row one is 1, and the others lie 0.4 of a
    step above zero."""
    import onnx
    from onnx import numpy_helper

    place.mkdir()
    whole = made("onnx", baseline, data).artifact
    model = onnx.load(str(whole.directory / "model.onnx"))
    head = next(node for node in reversed(model.graph.node) if node.op_type == "Gemm")
    tensor = next(one for one in model.graph.initializer if one.name == head.input[1])
    values = np.full(tensor.dims, 0.4 / 127, np.float32)
    rows = np.arange(values.shape[0])
    values[rows, rows] = 1.0
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, str(place / "model.onnx"))
    return identified(whole, place)


def converted(artifact: Any, form: str, place: Path, baseline: Candidate, data: Data) -> Any:
    """An ONNX artifact, in another format where it is asked for."""
    if form == "onnx":
        return artifact
    openvino = import_openvino()
    place.mkdir()
    model = openvino.convert_model(artifact.directory / "model.onnx")
    openvino.save_model(model, place / "model.xml", compress_to_fp16=False)
    return identified(made(form, baseline, data).artifact, place)


@both_back_ends
def test_biases_make_up_for_weights_that_round_one_way(
    form: str, target: str, baseline: Candidate, data: Data, tmp_path: Path
) -> None:
    back_end = importlib.import_module(f"torchstone.compress.int8.{target}")
    artifact = converted(leaning(baseline, data, tmp_path / "leaning"), form, tmp_path / "converted", baseline, data)
    pixels = data.sets(artifact, "calib")["calib"].images(slice(0, 60))
    expected = open_artifact(artifact)(pixels)["logits"].mean(axis=0)
    shifted = {}
    for how in ("none", "fast"):
        place = tmp_path / how
        place.mkdir()
        with back_end.Quantiser(
            artifact, pixels, registry.steps.get("int8").Config.model_validate({"bias": how})
        ) as quantiser:
            quantiser.write(place)
        found = open_artifact(identified(artifact, place))(pixels)["logits"].mean(axis=0)
        shifted[how] = float(np.abs(found - expected).mean())
    assert shifted["fast"] < 0.3 * shifted["none"], shifted


@both_back_ends
def test_a_layer_in_floating_point_keeps_its_bias(
    form: str, target: str, baseline: Candidate, data: Data, tmp_path: Path
) -> None:
    back_end = importlib.import_module(f"torchstone.compress.int8.{target}")
    artifact = converted(leaning(baseline, data, tmp_path / "leaning"), form, tmp_path / "converted", baseline, data)
    pixels = data.sets(artifact, "calib")["calib"].images(slice(0, 60))
    with back_end.Quantiser(artifact, pixels, registry.steps.get("int8").Config()) as quantiser:
        quantiser.write(tmp_path, quantiser.layers)
    found = open_artifact(identified(artifact, tmp_path))(pixels)["logits"]
    assert np.abs(found - open_artifact(artifact)(pixels)["logits"]).max() < 0.05 * np.abs(found).max()


def test_sizes_are_not_rounded() -> None:
    """What an exporter writes for padding that depends on the image: by half of its height."""
    from onnx import TensorProto, helper

    def constant(name: str, value: list[int]) -> Any:
        return helper.make_node("Constant", [], [name], value_ints=value)

    nodes = [
        helper.make_node("Relu", ["image"], ["seen"], name="relu"),
        helper.make_node("Shape", ["seen"], ["shape"], name="shape"),
        constant("two", [2]),
        helper.make_node("Gather", ["shape", "two"], ["height"], name="height"),
        helper.make_node("Div", ["height", "two"], ["half"], name="half"),
        helper.make_node("Mul", ["half", "stored"], ["wide"], name="wide"),
        helper.make_node("Pad", ["seen", "wide"], ["padded"], name="pad"),
        helper.make_node("Mul", ["padded", "padded"], ["answer"], name="square"),
    ]
    given = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 8, 8])
    out = helper.make_tensor_value_info("answer", TensorProto.FLOAT, None)
    stored = helper.make_tensor("stored", TensorProto.INT64, [1], [1])
    assert onnx_graph.of_sizes(helper.make_graph(nodes, "net", [given], [out], [stored])) == [
        "shape", "height", "half", "wide"
    ]  # fmt: skip


def test_every_node_has_a_name_by_which_it_can_be_left_out() -> None:
    from onnx import helper

    names = ["", "Relu_0", "", "other"]
    nodes = [helper.make_node("Relu", [f"t{n}"], [f"t{n + 1}"], name=name) for n, name in enumerate(names)]
    graph = helper.make_graph(nodes, "net", [], [])
    onnx_graph.name_all(graph)
    found = [node.name for node in graph.node]
    assert (found[1], found[3]) == ("Relu_0", "other")
    assert all(found)
    assert len(set(found)) == len(found)


def test_what_stands_behind_a_layer_in_floating_point_is_not_rounded_either() -> None:
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Conv", ["image", "w"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("Conv", ["b", "w"], ["c"], name="second"),
        helper.make_node("Add", ["b", "c"], ["d"], name="sum"),
        helper.make_node("GlobalAveragePool", ["d"], ["e"], name="mean"),
        helper.make_node("Gemm", ["e", "w"], ["logits"], name="head"),
    ]
    given, out = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("image", "logits"))
    graph = helper.make_graph(nodes, "net", [given], [out])
    layers = ["first", "second", "head"]
    assert onnx_graph.behind(graph, [], layers) == []
    assert onnx_graph.behind(graph, ["first"], layers) == ["relu", "sum", "mean"]
    assert onnx_graph.behind(graph, ["second"], layers) == ["sum", "mean"]
    assert onnx_graph.behind(graph, ["head"], layers) == []


def test_logits_are_not_rounded(baseline: Candidate, data: Data) -> None:
    candidate = made("int8@onnxruntime", baseline, data)
    assert len(np.unique(answers(candidate, data).scores)) > 256


def test_nothing_goes_back_where_the_drop_holds(baseline: Candidate, data: Data) -> None:
    done = made("int8:max_drop=5", baseline, data).artifact
    assert done.notes[-1].endswith("every layer in INT8")
    assert done.files == made("int8", baseline, data).artifact.files


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
def test_chains_that_come_to_the_same_files_are_one_model(
    target: str, exported: dict[str, Candidate], baseline: Candidate, data: Data, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, onnx = exported[f"int8@{target}"], exported["onnx"]
    same = made(f"int8:max_drop=50@{target}", baseline, data)
    assert same.name != plain.name
    capsys.readouterr()
    assert distinct([plain, onnx, same, plain]) == [plain, onnx]
    (note,) = capsys.readouterr().err.splitlines()
    assert same.name in note
    assert plain.name in note


@pytest.mark.parametrize("images", [300, 128, 32, 5])
def test_layers_are_compared_on_images_of_all_classes(images: int) -> None:
    """Calibration images stand in the order of their classes: the first ones would be of one."""
    pixels = np.arange(images, dtype=np.uint16)
    some = rescue._some(pixels)  # pyright: ignore[reportPrivateUsage, reportArgumentType]
    assert len(set(some)) == min(images, rescue.RANKED_BY)
    assert (some[0], some[-1]) == (0, images - 1)
    assert np.diff(some).max() <= np.ceil((images - 1) / (len(some) - 1))


@pytest.mark.parametrize("needed", range(1, 8))
def test_the_fewest_layers_are_found(needed: int) -> None:
    tried: list[int] = []

    def holds(kept: int) -> bool:
        tried.append(kept)
        return kept >= needed

    assert rescue._fewest(holds, 7) == needed  # pyright: ignore[reportPrivateUsage]
    assert len(tried) == len(set(tried)) <= 6


def test_a_drop_that_no_number_of_layers_keeps_is_refused() -> None:
    with pytest.raises(ChainError, match="7 of 8 layers"):
        rescue._fewest(lambda _: False, 7)  # pyright: ignore[reportPrivateUsage]
