"""Golden images tell apart a changed file, other pixels and other logits, and name the image."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from torchstone.core.errors import ArtifactError
from torchstone.core.values import Artifact, RuntimeOptions
from torchstone.runtimes import golden, open_artifact


@pytest.fixture
def bundle(lenet5: dict[str, Artifact], tmp_path: Path) -> Artifact:
    """A copy of the ONNX artifact with its golden images, to be damaged."""
    shutil.copytree(lenet5["onnx"].directory, tmp_path / "bundle")
    return lenet5["onnx"].model_copy(update={"directory": tmp_path / "bundle"})


@pytest.mark.parametrize(("form", "runtime"), [("torch", "torch"), ("onnx", "openvino"), ("openvino", "openvino")])
def test_every_runtime_reproduces_the_model(
    form: str, runtime: str, bundle: Artifact, lenet5: dict[str, Artifact]
) -> None:
    runner = open_artifact(lenet5[form], RuntimeOptions(batch=3), runtime=runtime)
    golden.check(bundle.directory, bundle.preprocess, runner)


def test_what_is_stored_can_be_read_without_torchstone(bundle: Artifact, encoded: list[bytes]) -> None:
    place = bundle.directory / "golden"
    header = json.loads((place / "golden.json").read_text())
    assert [item["file"] for item in header["items"]] == ["00.png", "01.png", "02.png", "03.png"]
    assert [(place / item["file"]).read_bytes() for item in header["items"]] == encoded
    logits = np.load(place / "logits.npy", allow_pickle=False)
    assert [item["top1"] for item in header["items"]] == logits.argmax(1).tolist()


def test_the_prepared_images_come_back(bundle: Artifact, pixels: np.ndarray) -> None:
    images, logits = golden.load_images(bundle.directory, bundle.preprocess)
    assert np.array_equal(images, pixels[:4])
    assert logits.shape == (4, 10)


def test_other_pixels_are_told_from_other_logits(bundle: Artifact) -> None:
    runner = open_artifact(bundle)
    other = bundle.preprocess.model_copy(update={"resize": 40, "interpolation": "bicubic"})
    with pytest.raises(ArtifactError, match=r"00\.png: its pixels differ"):
        golden.check(bundle.directory, other, runner)


def test_another_model_is_found_out(bundle: Artifact) -> None:
    runner = open_artifact(bundle)

    def wrong_for_the_third(batch: np.ndarray) -> Mapping[str, np.ndarray]:
        logits = runner(batch)["logits"].copy()
        if np.array_equal(batch[0], golden.load_images(bundle.directory, bundle.preprocess)[0][2]):
            logits[0, 3] += 0.01 * np.abs(logits).max()
        return {"logits": logits}

    with pytest.raises(ArtifactError, match=r"02\.png: its logits differ by 0\.01"):
        golden.check(bundle.directory, bundle.preprocess, wrong_for_the_third)


def test_nan_never_passes(bundle: Artifact) -> None:
    def broken(batch: np.ndarray) -> Mapping[str, np.ndarray]:
        return {"logits": np.full((len(batch), 10), np.nan, np.float32)}

    with pytest.raises(ArtifactError, match="logits differ"):
        golden.check(bundle.directory, bundle.preprocess, broken)


def test_a_changed_image_is_named(bundle: Artifact) -> None:
    path = bundle.directory / "golden" / "01.png"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ArtifactError, match=r"01\.png' is not the file that was stored"):
        golden.check(bundle.directory, bundle.preprocess, open_artifact(bundle))


@pytest.mark.parametrize("name", ["golden.json", "logits.npy", "02.png"])
def test_a_missing_file_is_named(name: str, bundle: Artifact) -> None:
    (bundle.directory / "golden" / name).unlink()
    with pytest.raises(ArtifactError, match=name.replace(".", r"\.")):
        golden.check(bundle.directory, bundle.preprocess, open_artifact(bundle))


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY nonsense", b"nonsense"])
def test_damaged_logits_are_the_users_error(content: bytes, bundle: Artifact) -> None:
    (bundle.directory / "golden" / "logits.npy").write_bytes(content)
    with pytest.raises(ArtifactError, match="is damaged"):
        golden.load_images(bundle.directory, bundle.preprocess)


def test_pickled_logits_are_not_opened(bundle: Artifact) -> None:
    np.save(bundle.directory / "golden" / "logits.npy", np.array([{}] * 4, object), allow_pickle=True)
    with pytest.raises(ArtifactError, match="is damaged"):
        golden.load_images(bundle.directory, bundle.preprocess)


@pytest.mark.parametrize("header", [{}, {"schema_version": 2}, {"schema_version": 1, "tolerance": 1, "items": []}])
def test_a_header_that_says_something_else_is_refused(header: dict, bundle: Artifact) -> None:
    (bundle.directory / "golden" / "golden.json").write_text(json.dumps(header))
    with pytest.raises(ArtifactError, match=r"golden\.json"):
        golden.load_images(bundle.directory, bundle.preprocess)
