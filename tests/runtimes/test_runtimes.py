"""Every runtime gives the same answers, for any number of images, or says why it cannot."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from torchstone.core import registry
from torchstone.core.errors import ArtifactError, ConfigError, MissingPackageError
from torchstone.core.machine import native_bf16
from torchstone.core.values import Artifact, Candidate, Format, InputSpec, OutputSpec, RuntimeOptions
from torchstone.runtimes import adapt, default_runtime, golden, open_artifact, open_candidate
from torchstone.runtimes.openvino import import_openvino

WAYS = ("torch@torch", "pt2@torch", "onnx@onnxruntime", "onnx@openvino", "openvino@openvino")
RUNTIMES = registry.runtimes.names()
MISSING = {name: registry.missing_packages(registry.runtimes.get(name).requires) for name in RUNTIMES}
has_bf16 = pytest.mark.skipif(not native_bf16(), reason="this CPU has no BF16 instructions")


def native(name: str, lenet5: dict[str, Artifact]) -> Artifact:
    """LeNet-5 in the format of this runtime."""
    form = registry.runtimes.get(name).formats[0]
    if form not in lenet5 or MISSING[name]:
        pytest.skip(f"{name} opens {form}, which cannot be made here: {', '.join(MISSING[name]) or 'no exporter'}")
    return lenet5[form]


def options_of(candidate: Candidate, **changes: Any) -> Candidate:
    return candidate.model_copy(update={"options": candidate.options.model_copy(update=changes)})


@pytest.fixture(scope="session")
def expected(candidates: dict[str, Candidate], pixels: np.ndarray) -> np.ndarray:
    """What eager PyTorch says, float32[40, 10]."""
    return open_candidate(candidates["torch@torch"])(pixels)["logits"]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize("way", WAYS)
def test_fp32_logits_are_those_of_pytorch(
    way: str, batch: int, threads: int, candidates: dict[str, Candidate], pixels: np.ndarray, expected: np.ndarray
) -> None:
    runner = open_candidate(options_of(candidates[way], batch=batch, threads=threads))
    for count in (1, 6, 7, 8, 40):  # with a batch of 7: a part of one, one, one and a part, five and a part
        logits = runner(pixels[:count])["logits"]
        assert logits.dtype == np.float32
        assert golden.difference(logits, expected[:count]) <= 1e-5


@pytest.mark.parametrize("way", WAYS)
def test_an_answer_is_not_changed_by_the_next_call(
    way: str, candidates: dict[str, Candidate], pixels: np.ndarray
) -> None:
    runner = open_candidate(candidates[way])
    first = runner(pixels[:1])["logits"]
    before = first.copy()
    second = runner(pixels[20:21])["logits"]
    assert np.array_equal(first, before)
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("way", WAYS)
def test_read_only_and_strided_images_are_taken(
    way: str, candidates: dict[str, Candidate], pixels: np.ndarray, expected: np.ndarray
) -> None:
    mapped = pixels.copy()
    mapped.setflags(write=False)  # as a memory-mapped cache gives them
    runner = open_candidate(candidates[way])
    assert golden.difference(runner(mapped[::2])["logits"], expected[::2]) <= 1e-5


@pytest.mark.parametrize(
    "batch",
    [
        np.zeros((1, 32, 32, 3), np.float32),
        np.zeros((32, 32, 3), np.uint8),
        np.zeros((1, 3, 32, 32), np.uint8),
        np.zeros((1, 28, 28, 3), np.uint8),
        np.zeros((0, 32, 32, 3), np.uint8),
    ],
    ids=["float", "no batch", "NCHW", "another size", "empty"],
)
@pytest.mark.parametrize("way", WAYS)
def test_what_is_no_batch_is_refused_by_shape_and_type(
    way: str, batch: np.ndarray, candidates: dict[str, Candidate]
) -> None:
    runner = open_candidate(candidates[way])
    with pytest.raises(ValueError, match=r"a batch is uint8\[N, 32, 32, 3\], not "):
        runner(batch)


@has_bf16
@pytest.mark.parametrize("way", ["torch@torch", "onnx@openvino", "openvino@openvino"])
def test_bf16_is_really_another_arithmetic(
    way: str, candidates: dict[str, Candidate], pixels: np.ndarray, expected: np.ndarray
) -> None:
    logits = open_candidate(options_of(candidates[way], precision="bf16", batch=8))(pixels)["logits"]
    assert logits.dtype == np.float32
    assert 1e-4 < golden.difference(logits, expected) < 0.1


def test_bf16_is_refused_where_onnxruntime_would_ignore_it(candidates: dict[str, Candidate]) -> None:
    with pytest.raises(ArtifactError, match="has no bf16 arithmetic") as caught:
        open_candidate(options_of(candidates["onnx@onnxruntime"], precision="bf16"))
    assert caught.value.hint


def test_bf16_is_refused_where_openvino_falls_back(candidates: dict[str, Candidate], monkeypatch: Any) -> None:
    from torchstone.runtimes import openvino

    real = openvino.compile_model
    # The plug-in on a CPU without BF16 answers the hint with an FP32 model: here it is made so.
    monkeypatch.setattr(
        openvino,
        "compile_model",
        lambda path, artifact, o: real(path, artifact, o.model_copy(update={"precision": "f32"})),
    )
    with pytest.raises(ArtifactError, match="computes in f32 on this CPU, although bf16"):
        open_candidate(options_of(candidates["onnx@openvino"], precision="bf16"))


@pytest.mark.parametrize("way", WAYS)
def test_a_gpu_that_is_not_there_is_an_error_and_not_the_cpu(way: str, candidates: dict[str, Candidate]) -> None:
    import torch

    if torch.cuda.is_available() and "openvino" not in way:
        pytest.skip("there is a GPU")
    with pytest.raises(ArtifactError, match=r"CUDA|cuda") as caught:
        open_candidate(options_of(candidates[way], provider="cuda"))
    assert caught.value.hint


@pytest.mark.parametrize("name", RUNTIMES)
@pytest.mark.parametrize("damage", ["truncated", "nonsense", "missing"])
def test_a_damaged_model_is_the_users_error(
    name: str, damage: str, lenet5: dict[str, Artifact], tmp_path: Path
) -> None:
    artifact = native(name, lenet5)
    copy = tmp_path / "copy"
    shutil.copytree(artifact.directory, copy)
    for file in artifact.files:
        path = copy / file
        if damage == "missing":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if damage == "truncated" else b"nonsense")
    with pytest.raises(ArtifactError) as caught:
        open_artifact(artifact.model_copy(update={"directory": copy}), runtime=name)
    assert str(copy) in caught.value.message


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_model_with_another_number_of_classes_is_refused_when_opened(name: str, lenet5: dict[str, Artifact]) -> None:
    artifact = native(name, lenet5).model_copy(update={"classes": ("ant", "bee")})
    with pytest.raises(ArtifactError):
        open_artifact(artifact, runtime=name)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_an_output_that_is_not_there_is_named(name: str, lenet5: dict[str, Artifact]) -> None:
    artifact = lenet5["onnx"].model_copy(update={"output": OutputSpec(name="logit")})
    with pytest.raises(ArtifactError, match="no output called 'logit'") as caught:
        open_artifact(artifact, runtime=name)
    assert caught.value.hint == "did you mean 'logits'?"


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_format_it_does_not_open_is_refused(name: str, lenet5: dict[str, Artifact]) -> None:
    plugin = registry.runtimes.get(name)  # it refuses before it imports its packages
    for other in set(lenet5) - set(plugin.formats):
        with pytest.raises(ArtifactError, match="this artifact is"):
            plugin.open(lenet5[other], RuntimeOptions())


def test_each_format_has_its_native_runtime() -> None:
    formats: tuple[Format, ...] = ("torch", "pt2", "onnx", "openvino", "tflite", "tensorrt")
    expected = ["torch", "torch", "onnxruntime", "openvino", "litert", "tensorrt"]
    assert [default_runtime(form) for form in formats] == expected


def test_an_unknown_runtime_is_corrected(lenet5: dict[str, Artifact]) -> None:
    with pytest.raises(ConfigError) as caught:
        open_artifact(lenet5["onnx"], runtime="onnxruntim")
    assert caught.value.hint == "did you mean 'onnxruntime'?"


def test_threads_are_those_asked_for(candidates: dict[str, Candidate], pixels: np.ndarray) -> None:
    import torch

    first, second = (open_candidate(options_of(candidates["torch@torch"], threads=n)) for n in (1, 2))
    for runner, threads in ((first, 1), (second, 2), (first, 1)):
        runner(pixels[:1])
        assert torch.get_num_threads() == threads


WITHOUT_TORCH = """
import json, os, sys
sys.modules["torch"] = None
from pathlib import Path
import numpy as np
from torchstone.core.values import Candidate
from torchstone.runtimes import open_candidate
candidate = Candidate.model_validate_json(sys.argv[1])
artifact = candidate.artifact.model_copy(update={"directory": Path(sys.argv[2])})
logits = open_candidate(candidate.model_copy(update={"artifact": artifact}))(np.load(sys.argv[3]))["logits"]
assert not any(name.startswith(("polars", "scipy", "matplotlib")) for name in sys.modules)
assert not any(name.startswith("openvino_telemetry.") for name in sys.modules)
print(json.dumps(logits.tolist()))
"""


@pytest.mark.parametrize("way", ["onnx@onnxruntime", "openvino@openvino"])
def test_a_process_without_torch_serves_it(
    way: str, candidates: dict[str, Candidate], pixels: np.ndarray, expected: np.ndarray, tmp_path: Path
) -> None:
    np.save(tmp_path / "pixels.npy", pixels)
    candidate = candidates[way]
    arguments = [candidate.model_dump_json(), str(candidate.artifact.directory), str(tmp_path / "pixels.npy")]
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT_TORCH, *arguments],
        capture_output=True, text=True, check=False, env={**environment, "HOME": str(tmp_path)},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    assert golden.difference(np.array(json.loads(ended.stdout), np.float32), expected) <= 1e-5
    assert [path.name for path in tmp_path.iterdir()] == ["pixels.npy"], "something was left in the home directory"


def test_an_exported_program_that_holds_a_pickle_is_not_opened(lenet5: dict[str, Artifact], tmp_path: Path) -> None:
    """As PyTorch writes it unless told otherwise, with the example's pickle; and with a weight that says it is one."""
    import torch

    program = torch.export.load(lenet5["pt2"].directory / "model.pt2")
    program.example_inputs = ((torch.zeros(2, 32, 32, 3, dtype=torch.uint8),), {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of weights in channels_last
        torch.export.save(program, tmp_path / "model.pt2")
    artifact = lenet5["pt2"].model_copy(update={"directory": tmp_path})
    with pytest.raises(ArtifactError, match="sample inputs, which are a pickle"):
        open_artifact(artifact)
    with (
        zipfile.ZipFile(lenet5["pt2"].directory / "model.pt2") as whole,
        zipfile.ZipFile(tmp_path / "model.pt2", "w") as changed,
    ):
        for name in whole.namelist():
            changed.writestr(name, whole.read(name).replace(b'"use_pickle": false', b'"use_pickle": true', 1))
    with pytest.raises(ArtifactError, match="stored as a pickle"):
        open_artifact(artifact)


def test_tensorrt_says_what_it_lacks(lenet5: dict[str, Artifact]) -> None:
    """An engine cannot be built where there is no NVIDIA GPU; where one is, it answers as its parent does."""
    if MISSING["tensorrt"]:
        with pytest.raises(MissingPackageError, match="tensorrt"):
            open_artifact(lenet5["onnx"], runtime="tensorrt")
        pytest.skip("no engine is built or run: the package tensorrt is not installed")
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no engine is built or run: there is no CUDA device")
    step = registry.steps.ready("tensorrt")
    with tempfile.TemporaryDirectory() as scratch:
        step.apply(lenet5["onnx"], cast(Any, None), step.Config(), None, Path(scratch))


def test_openvino_is_imported_without_its_telemetry() -> None:
    import_openvino()
    assert not any(name.startswith("openvino_telemetry.") for name in sys.modules)


def test_a_foreign_input_is_given_what_it_wants(pixels: np.ndarray, lenet5: dict[str, Artifact]) -> None:
    images = pixels[:2]
    artifact = lenet5["onnx"]
    assert np.shares_memory(adapt.to_input(images, artifact), images)
    spec = InputSpec(layout="NCHW", dtype="float32", colour="bgr", normalised=False)
    given = adapt.to_input(images, artifact.model_copy(update={"input": spec}))  # mean and deviation are 0.5
    assert given.dtype == np.float32
    assert given.flags.c_contiguous
    np.testing.assert_allclose(given[:, 0], images[..., 2] / 127.5 - 1, atol=1e-6)
    np.testing.assert_allclose(given[:, 2], images[..., 0] / 127.5 - 1, atol=1e-6)


def test_foreign_scores_become_logits() -> None:
    logits = np.array([[9.0, 1.0, 2.0, -1.0]], np.float32)
    probabilities = np.exp(logits) / np.exp(logits).sum()
    found = adapt.to_logits(probabilities, OutputSpec(kind="probabilities"))
    np.testing.assert_allclose(found - found[0, 0], logits - logits[0, 0], atol=1e-5)
    assert adapt.to_logits(logits, OutputSpec(class_offset=1)).tolist() == [[1.0, 2.0, -1.0]]
    assert adapt.to_logits(logits[..., None, None], OutputSpec(class_offset=1)).tolist() == [[1.0, 2.0, -1.0]]
    assert np.isfinite(adapt.to_logits(np.zeros((1, 3), np.float32), OutputSpec(kind="probabilities"))).all()


def test_a_foreign_onnx_file_runs(tmp_path: Path, lenet5: dict[str, Artifact], pixels: np.ndarray) -> None:
    """Float NCHW BGR in, probabilities with a background class out: each runtime that opens ONNX gives the same."""
    import onnx
    from onnx import TensorProto, helper

    weights = np.random.default_rng(0).normal(size=(3, 11)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("MatMul", ["flat", "w"], ["scores"]),
            helper.make_node("Softmax", ["scores"], ["p"]),
        ],
        "foreign",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 32, 32])],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, ["N", 11])],
        [helper.make_tensor("w", TensorProto.FLOAT, (3, 11), weights.ravel())],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, tmp_path / "model.onnx")
    artifact = lenet5["onnx"].model_copy(
        update={
            "directory": tmp_path,
            "input": InputSpec(name="x", layout="NCHW", dtype="float32", colour="bgr", normalised=False),
            "preprocess": lenet5["onnx"].preprocess.model_copy(update={"mean": (0.0,) * 3, "std": (1.0,) * 3}),
            "output": OutputSpec(name="p", kind="probabilities", class_offset=1),
        }
    )
    means = pixels.astype(np.float64).mean((1, 2))[:, ::-1] / 255
    scores = (means @ weights)[:, 1:]
    for name in ("onnxruntime", "openvino"):
        logits = open_artifact(artifact, RuntimeOptions(batch=16), runtime=name)(pixels)["logits"]
        np.testing.assert_allclose(logits - logits[:, :1], scores - scores[:, :1], atol=1e-4)
