"""Each step on a real trained network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from built import answers, made, top1

from torchstone.core.artifact import load_artifact
from torchstone.core.errors import ArtifactError, ChainError
from torchstone.core.run import Run
from torchstone.core.seeding import sample_rows
from torchstone.core.values import Artifact, Candidate, RuntimeOptions
from torchstone.models import store, zoo
from torchstone.runtimes import golden, open_artifact, open_candidate, parity
from torchstone.stages import compress
from torchstone.stages.read import Data


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_fp32_exports_agree_with_torch(
    name: str, exported: dict[str, Candidate], baseline: Candidate, data: Data
) -> None:
    pixels, expected = golden.load_images(baseline.artifact.directory, baseline.artifact.preprocess)
    found = open_candidate(exported[name])(pixels)["logits"]
    assert golden.difference(found, expected) <= parity.LIMIT
    ours, theirs = answers(exported[name], data), answers(baseline, data)
    assert (ours.scores.argmax(1) == theirs.scores.argmax(1)).mean() >= 0.999


@pytest.mark.parametrize("name", ["onnx", "openvino", "int8@onnxruntime", "int8@openvino", "bf16@openvino"])
def test_any_batch_gives_the_same_answers(name: str, exported: dict[str, Candidate], data: Data) -> None:
    images = data.sets(exported[name].artifact, "val")["val"].images(slice(0, 7))
    runner = open_candidate(exported[name])
    whole = runner(images)["logits"]
    single = np.concatenate([runner(images[row : row + 1])["logits"] for row in range(7)])
    assert golden.difference(single, whole) < 1e-3


@pytest.mark.parametrize("name", ["int8@onnxruntime", "int8@openvino", "bf16@openvino", "bf16@torch"])
def test_less_precision_keeps_the_accuracy(
    name: str, exported: dict[str, Candidate], baseline: Candidate, data: Data
) -> None:
    assert top1(answers(exported[name], data)) >= top1(answers(baseline, data)) - 0.01


@pytest.mark.parametrize(
    ("name", "most"), [("int8@onnxruntime", 0.45), ("int8@openvino", 0.55), ("bf16@openvino", 0.65)]
)
def test_files_get_smaller(name: str, most: float, exported: dict[str, Candidate]) -> None:
    assert exported[name].artifact.size_mb < most * exported["onnx"].artifact.size_mb


def test_int8_graphs_compute_in_integers(exported: dict[str, Candidate]) -> None:
    import onnx
    import openvino

    graph = onnx.load(str(exported["int8@onnxruntime"].artifact.directory / "model.onnx")).graph
    weights = [
        tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) > 1
    ]
    assert len(weights) == 5  # two convolutions, three linear layers
    model = openvino.Core().read_model(exported["int8@openvino"].artifact.directory / "model.xml")
    assert sum(node.get_type_name() == "FakeQuantize" for node in model.get_ops()) >= 5


def test_every_artifact_knows_where_it_came_from(exported: dict[str, Candidate], trained: Artifact) -> None:
    int8 = exported["int8@openvino"].artifact
    assert int8.chain == "int8@openvino"
    assert int8.parent == exported["openvino"].artifact.id
    assert exported["openvino"].artifact.parent == exported["onnx"].artifact.id
    assert exported["onnx"].artifact.parent == trained.id


def test_calibration_sees_every_class(data: Data, trained: Artifact) -> None:
    """The images of a part lie sorted by path, so that the first ones are of the first classes alone."""
    calib = data.sets(trained, "calib")["calib"]
    for count in (10, 30):
        rows = sample_rows(calib.labels, count, "calibration")
        assert np.array_equal(np.bincount(calib.labels[rows], minlength=10), np.full(10, count // 10))


def test_common_prefixes_are_built_once(exported: dict[str, Candidate], baseline: Candidate, data: Data) -> None:
    before = {path: path.stat().st_mtime_ns for path in data.run.artifacts.iterdir()}
    plans = compress.plan_all(["onnx", "openvino", "int8@openvino"])
    again = compress.build_all(plans, baseline, data, seed=0)
    assert [one.id for one in again] == [exported[name].id for name in ("onnx", "openvino", "int8@openvino")]
    assert {path: path.stat().st_mtime_ns for path in data.run.artifacts.iterdir()} == before


@pytest.fixture(scope="module")
def pruned(baseline: Candidate, data: Data) -> Candidate:
    return made("prune=0.3+finetune=2", baseline, data)


def test_a_pruned_network_is_smaller_in_every_layer_and_reloads(pruned: Candidate, baseline: Candidate) -> None:
    small, large = store.load_network(pruned.artifact), store.load_network(baseline.artifact)
    widths = [
        (len(one.weight), len(other.weight))  # pyright: ignore[reportArgumentType]
        for one, other in zip(small.modules(), large.modules(), strict=True)
        if hasattr(one, "weight")
    ]
    assert all(one < other for one, other in widths[:-1])
    assert widths[-1] == (10, 10)
    assert zoo.parameters(small) < 0.6 * zoo.parameters(large)
    golden.check(pruned.artifact.directory, pruned.artifact.preprocess, open_candidate(pruned))


def test_finetuning_mends_what_pruning_broke(pruned: Candidate, baseline: Candidate, data: Data) -> None:
    broken = made("prune=0.3", baseline, data)
    assert top1(answers(broken, data)) < top1(answers(pruned, data))
    assert top1(answers(pruned, data)) > 0.9


def test_pruning_that_changes_nothing_is_an_error_with_a_way_out(baseline: Candidate, data: Data) -> None:
    with pytest.raises(ChainError, match="as wide as it was") as caught:
        compress.build_all(compress.plan_all(["prune=0.02:round_to=256"]), baseline, data, seed=0)
    assert "round_to=1" in str(caught.value)
    assert not list(data.run.artifacts.glob("prune=0.02*.partial"))


def test_the_dynamo_exporter_agrees_as_well(baseline: Candidate, data: Data) -> None:
    plans = compress.plan_all(["onnx:exporter=dynamo"])
    done = compress.build_all(plans, baseline, data, seed=0)[0].artifact
    assert [path.name for path in done.directory.glob("model.onnx*")] == ["model.onnx"]
    pixels, expected = golden.load_images(baseline.artifact.directory, baseline.artifact.preprocess)
    assert golden.difference(open_artifact(done)(pixels)["logits"], expected) <= parity.LIMIT


def test_an_export_that_computes_something_else_is_refused(exported: dict[str, Candidate], tmp_path: Path) -> None:
    import onnx
    from onnx import numpy_helper

    good = exported["onnx"].artifact
    model = onnx.load(str(good.directory / "model.onnx"))
    for tensor in model.graph.initializer:
        if len(tensor.dims) == 2:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 1.01, tensor.name))
    onnx.save(model, str(tmp_path / "model.onnx"))
    with pytest.raises(ArtifactError, match="differs from"):
        parity.prove(good, good.model_copy(update={"directory": tmp_path}))


def test_a_changed_model_file_is_noticed_when_it_is_opened_again(
    exported: dict[str, Candidate], tmp_path: Path
) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(exported["onnx"].artifact.directory, copy)
    content = bytearray((copy / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (copy / "model.onnx").write_bytes(bytes(content))
    with pytest.raises(ArtifactError, match="sha256 differs"):
        load_artifact(copy)


def test_onnxruntime_refuses_bf16(exported: dict[str, Candidate]) -> None:
    with pytest.raises(ArtifactError, match="bf16"):
        open_artifact(exported["onnx"].artifact, RuntimeOptions(precision="bf16"))


def test_a_run_directory_can_be_moved(data: Data, exported: dict[str, Candidate], tmp_path: Path) -> None:
    import shutil

    data.run.save_candidates(list(exported.values()))
    shutil.copytree(data.run.root, tmp_path / "moved")
    moved = Run(tmp_path / "moved").load_candidates()
    assert [one.id for one in moved] == [one.id for one in exported.values()]
    assert all(str(tmp_path) in str(one.artifact.directory) for one in moved)


def test_another_decoder_changes_nothing_but_the_pixels(baseline: Candidate, data: Data) -> None:
    pytest.importorskip("simplejpeg")
    plans = compress.plan_all(["decoder=simplejpeg-torch", "decoder=simplejpeg-torch+onnx"])
    for found, runtime in zip(compress.build_all(plans, baseline, data, seed=0), ("torch", "onnxruntime"), strict=True):
        artifact = found.artifact
        assert (found.runtime, found.free) == (runtime, True)
        assert artifact.preprocess.decoder == "simplejpeg-torch"
        same = {"decoder": "pillow", "decoder_version": baseline.artifact.preprocess.decoder_version}
        assert artifact.preprocess.model_copy(update=same) == baseline.artifact.preprocess
        assert artifact.id != baseline.artifact.id
        golden.check(artifact.directory, artifact.preprocess, open_candidate(found))
        here = answers(found, data)  # digits are PNG files, which Pillow decodes for both
        np.testing.assert_array_equal(here.scores.argmax(1), answers(baseline, data).scores.argmax(1))
    with pytest.raises(ChainError, match="by pillow already"):
        compress.build_all(compress.plan_all(["decoder=pillow"]), baseline, data, seed=0)


def test_a_size_that_the_network_cannot_take_is_said_before_anything_is_built(
    baseline: Candidate, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: object, **named: object) -> None:
        raise AssertionError("something was built")

    monkeypatch.setattr(compress.build, "candidate", never)
    plans = compress.plan_all(["prune=0.3+finetune=1", "resolution=20:epochs=1+onnx"])
    with pytest.raises(ChainError, match="does not take images of 20 pixels"):
        compress.build_all(plans, baseline, data, seed=0)


def test_each_chain_has_its_candidate_though_two_come_to_the_same_model(baseline: Candidate, data: Data) -> None:
    found = compress.build_all(compress.plan_all(["onnx", "onnx"]), baseline, data, seed=0)
    assert [one.artifact.chain for one in found] == ["onnx", "onnx"]
