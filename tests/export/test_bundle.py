from __future__ import annotations

import json
from pathlib import Path

import pytest

from torchstone.core.errors import ArtifactError
from torchstone.core.values import Candidate
from torchstone.export import bundle
from torchstone.runtimes import golden, open_candidate


@pytest.fixture
def written(exported: dict[str, Candidate], tmp_path: Path) -> Path:
    """The bundle of an INT8 winner, with the FP32 model to fall back on."""
    candidates = list(exported.values())
    winner = exported["int8@openvino"]
    return bundle.write(winner, bundle.fallback_among(candidates), tmp_path / "bundle")


def test_it_holds_all_that_serving_needs(written: Path) -> None:
    names = {path.name for path in written.iterdir()}
    assert names >= {"model.xml", "model.bin", "preprocess.json", "labels.json", "golden", "fallback", "manifest.json"}
    served = bundle.load(written)
    assert (served.name, served.runtime) == ("int8@openvino", "openvino")
    golden.check(written, served.artifact.preprocess, open_candidate(served))


def test_an_int8_bundle_carries_the_fp32_model(written: Path) -> None:
    spare = bundle.load(written / "fallback")
    assert (spare.artifact.format, spare.options.precision) == ("onnx", "f32")
    golden.check(written / "fallback", spare.artifact.preprocess, open_candidate(spare))


def test_an_fp32_bundle_needs_no_fallback(exported: dict[str, Candidate], tmp_path: Path) -> None:
    winner = exported["onnx"]
    assert not bundle.needs_fallback(winner)
    assert bundle.needs_fallback(exported["int8@openvino"])
    assert bundle.needs_fallback(exported["bf16@openvino"])
    assert not (bundle.write(winner, None, tmp_path / "bundle") / "fallback").exists()


def test_its_golden_logits_are_those_of_the_candidate_that_passed(
    exported: dict[str, Candidate], tmp_path: Path
) -> None:
    """BF16 answers are further from FP32's than FP32's tolerance allows: the logits must be the candidate's own."""
    winner = exported["bf16@openvino"]
    place = bundle.write(winner, None, tmp_path / "bundle")
    pixels, stored = golden.load_images(place, winner.artifact.preprocess)
    assert golden.difference(open_candidate(winner)(pixels)["logits"], stored) < 0.01
    assert golden.difference(open_candidate(exported["openvino"])(pixels)["logits"], stored) > 1e-5


def test_a_changed_model_is_refused(written: Path) -> None:
    content = (written / "model.bin").read_bytes()
    (written / "model.bin").unlink()  # it may be a hard link
    (written / "model.bin").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ArtifactError, match="sha256 differs"):
        bundle.load(written)


@pytest.mark.parametrize(
    "content", ["{}", "[]", '{"name": "x", "runtime": "y", "options": {"threads": 0}, "free": true}']
)
def test_a_damaged_description_is_an_error_with_its_file(written: Path, content: str) -> None:
    (written / "candidate.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"candidate\.json"):
        bundle.load(written)


def test_a_new_bundle_replaces_the_old_one_whole(exported: dict[str, Candidate], written: Path) -> None:
    bundle.write(exported["onnx"], None, written)
    assert not (written / "model.bin").exists()
    assert set(json.loads((written / "manifest.json").read_text())) >= {"model.onnx", "labels.json"}
