"""Steps that tutorials praise, and what they do."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from built import answers, made, top1

from torchstone.core.errors import ChainError
from torchstone.core.values import Artifact, Candidate
from torchstone.models import store
from torchstone.runtimes import golden, open_artifact, open_candidate
from torchstone.stages.read import Data


def test_dynamic_quantises_linear_layers_alone(baseline: Candidate, data: Data) -> None:
    import onnx

    done = made("dynamic", baseline, data)
    assert (done.name, done.runtime) == ("dynamic@onnxruntime", "onnxruntime")
    kinds = [node.op_type for node in onnx.load(str(done.artifact.directory / "model.onnx")).graph.node]
    assert (kinds.count("MatMulInteger"), kinds.count("Conv"), kinds.count("ConvInteger")) == (3, 2, 0)
    found = answers(done, data)
    assert found.header["batch"] == 1, "its ranges are those of the whole batch"
    assert answers(baseline, data).header["batch"] == 32
    assert top1(found) >= top1(answers(baseline, data)) - 0.01


def test_dynamic_refuses_a_network_without_linear_layers(baseline: Candidate, data: Data) -> None:
    """A graph whose linear layers are convolutions of one pixel."""
    from typing import Any, cast

    import onnx
    from onnx import helper

    from torchstone.core import registry
    from torchstone.core.artifact import identified

    parent = made("onnx", baseline, data).artifact
    place = data.run.root / "convolutions"
    place.mkdir()
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["x"], to=onnx.TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["x"], ["logits"], axes=[1, 2], keepdims=0),
        ],
        "none",
        [helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, ["batch", 32, 32, 3])],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch", 3])],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(place / "model.onnx")
    )
    step = registry.steps.get("dynamic")
    out = place / "out"
    out.mkdir()
    with pytest.raises(ChainError, match="has none"):
        step.apply(identified(parent, place), cast(Any, None), step.Config(), "onnxruntime", out)


@pytest.mark.parametrize(("chain", "rival"), [("fp16@onnxruntime", "onnx"), ("fp16@openvino", "openvino")])
def test_fp16_halves_the_file_and_rounds_the_weights(chain: str, rival: str, baseline: Candidate, data: Data) -> None:
    done, whole = made(chain, baseline, data), made(rival, baseline, data)
    assert done.free
    assert done.options.precision == "f32"
    assert done.artifact.size_mb < 0.65 * whole.artifact.size_mb
    pixels, expected = golden.load_images(whole.artifact.directory, whole.artifact.preprocess)
    difference = golden.difference(open_candidate(done)(pixels)["logits"], expected)
    assert 1e-6 < difference < 5e-3  # rounded to 11 bits, and not computed in them
    assert (answers(done, data).scores.argmax(1) == answers(whole, data).scores.argmax(1)).mean() >= 0.99


def test_fp16_refuses_values_that_it_does_not_have(baseline: Candidate, data: Data) -> None:
    from typing import Any, cast

    import onnx
    from onnx import numpy_helper

    from torchstone.core import registry
    from torchstone.core.artifact import identified

    parent = made("onnx", baseline, data).artifact
    place = data.run.root / "large"
    (place / "out").mkdir(parents=True)
    model = onnx.load(str(parent.directory / "model.onnx"))
    large = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 4)
    large.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(large) * np.float32(1e7), large.name))
    onnx.save(model, str(place / "model.onnx"))
    step = registry.steps.get("fp16")
    with pytest.raises(ChainError, match="float16 does not have"):
        step.apply(identified(parent, place), cast(Any, None), step.Config(), "onnxruntime", place / "out")


def weights_of(artifact: Artifact) -> dict[str, np.ndarray]:
    state = store.load_state(artifact.directory / store.WEIGHTS)
    return {name: value.numpy() for name, value in state.items() if value.ndim > 1}


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_sparsify_zeroes_the_smallest_weights(scope: str, baseline: Candidate, data: Data) -> None:
    done = made(f"sparsify=0.6:scope={scope}", baseline, data).artifact
    before, after = weights_of(baseline.artifact), weights_of(done)
    groups = [list(before)] if scope == "global" else [[name] for name in before]
    for group in groups:
        old, new = (np.concatenate([some[name].ravel() for name in group]) for some in (before, after))
        zero = new == 0
        assert abs(zero.mean() - 0.6) <= 2 / len(new)
        assert np.abs(old[zero]).max() <= np.abs(old[~zero]).min()
        np.testing.assert_array_equal(new[~zero], old[~zero])
    if scope == "global":
        assert len({round(float((after[name] == 0).mean()), 2) for name in after}) > 1


def test_sparsify_says_what_it_gives(baseline: Candidate, data: Data) -> None:
    """The file is as large as before; what a compressor makes of it is smaller, and is said."""
    done = made("sparsify=0.8", baseline, data).artifact
    assert done.size_mb == pytest.approx(baseline.artifact.size_mb, rel=0.01)
    packed = [
        len(gzip.compress((one.directory / store.WEIGHTS).read_bytes(), 6)) / 1e6 for one in (done, baseline.artifact)
    ]
    assert packed[0] < 0.5 * packed[1]
    assert done.notes == (
        f"sparsify: 80.0 % of the weights are zero; the file is {done.size_mb:.3g} MB as before, "
        f"gzipped {packed[0]:.3g} instead of {packed[1]:.3g} MB",
    )


def test_notes_stay_with_what_is_made_of_it(baseline: Candidate, data: Data) -> None:
    sparse, child = made("sparsify=0.8", baseline, data).artifact, made("sparsify=0.8+onnx", baseline, data).artifact
    assert child.notes[: len(sparse.notes)] == sparse.notes
    assert child.steps == ("sparsify", "onnx")
    assert open_artifact(child) is not None
