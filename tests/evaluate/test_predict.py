"""Predictions are stored once for each question, and never mixed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from torchstone.core import tables
from torchstone.core.errors import ArtifactError
from torchstone.core.machine import usable_cores
from torchstone.core.values import Candidate, Part, Split
from torchstone.evaluate import predict
from torchstone.runtimes import golden, open_candidate


@dataclass
class Pieces:
    """Decoded images in memory; counts how many were asked for."""

    pixels: np.ndarray
    asked: int = 0

    @property
    def items(self) -> list[str]:
        return [f"piece/{row:03d}.png" for row in range(len(self.pixels))]

    @property
    def labels(self) -> np.ndarray:
        return np.arange(len(self.pixels)) % 10

    def __len__(self) -> int:
        return len(self.pixels)

    def images(self, rows: slice | np.ndarray) -> np.ndarray:
        found = self.pixels[rows]
        self.asked += len(found)
        return found

    def stored(self, rows: slice | np.ndarray) -> np.ndarray:
        return self.pixels[rows]

    def encoded(self, row: int) -> bytes:
        raise NotImplementedError


@pytest.fixture
def images(pixels: np.ndarray) -> Pieces:
    return Pieces(pixels)


@pytest.fixture
def split(tmp_path: Path) -> Split:
    sizes = {"train": 0, "val": 40, "calib": 0, "test": 40}
    return Split.model_validate(
        {"seed": 0, "sizes": sizes, "fingerprint": "f", "test_fingerprint": "t", "table": tmp_path / "split.parquet"}
    )


@pytest.mark.parametrize("way", ["torch@torch", "onnx@onnxruntime", "onnx@openvino"])
def test_every_image_is_answered_in_order(
    way: str, candidates: dict[str, Candidate], split: Split, images: Pieces, tmp_path: Path
) -> None:
    path = tmp_path / "predictions-val.parquet"
    found = predict.predict(candidates[way], split, "val", images, path)
    one_by_one = open_candidate(candidates[way])
    logits = np.concatenate([one_by_one(image[None])["logits"] for image in images.pixels])
    assert found.scores.dtype == np.float32
    assert golden.difference(found.scores, logits) <= 1e-5
    assert list(found.items) == images.items
    assert found.labels.tolist() == images.labels.tolist()
    assert len(found) == 40


def test_what_is_stored_says_whose_answers_these_are(
    candidates: dict[str, Candidate], split: Split, images: Pieces, tmp_path: Path
) -> None:
    candidate = candidates["onnx@onnxruntime"]
    path = tmp_path / "predictions-val.parquet"
    found = predict.predict(candidate, split, "val", images, path)
    table, header = tables.read(path)
    assert [str(kind) for kind in table.dtypes] == ["String", "Int32", "Array(Float32, shape=(10,))"]
    assert header == found.header
    assert header.pop("seconds") > 0
    assert header == {
        "candidate_id": candidate.id,
        "split_fingerprint": "f",
        "part": "val",
        "kind": "logits",
        "threads": usable_cores(),
        "batch": 32,
    }
    assert predict.load(path).scores.tolist() == found.scores.tolist()


def test_the_same_question_is_not_computed_twice(
    candidates: dict[str, Candidate], split: Split, images: Pieces, tmp_path: Path
) -> None:
    path = tmp_path / "predictions-val.parquet"
    first = predict.predict(candidates["onnx@onnxruntime"], split, "val", images, path)
    asked, written = images.asked, path.stat().st_mtime_ns
    second = predict.predict(candidates["onnx@onnxruntime"], split, "val", images, path)
    assert (images.asked, path.stat().st_mtime_ns) == (asked, written)
    assert second.header == first.header


def test_another_question_is_answered_anew(
    candidates: dict[str, Candidate], split: Split, images: Pieces, tmp_path: Path
) -> None:
    path = tmp_path / "predictions.parquet"
    predict.predict(candidates["onnx@onnxruntime"], split, "val", images, path)
    others: list[tuple[Candidate, Split, Part, Pieces]] = [
        (candidates["onnx@openvino"], split, "val", images),
        (candidates["onnx@openvino"], split.model_copy(update={"fingerprint": "g"}), "val", images),
        (candidates["onnx@openvino"], split, "test", images),
    ]
    for candidate, of_split, part, of_images in others:
        of_images.asked = 0
        found = predict.predict(candidate, of_split, part, of_images, path)
        assert of_images.asked == 40 + predict.ASKED  # some twice: may they share a batch?
        assert found.header["candidate_id"] == candidate.id
        assert found.header["split_fingerprint"] == of_split.fingerprint
        assert found.header["part"] == part


@pytest.mark.parametrize("content", [b"", b"PAR1 nonsense PAR1"])
def test_a_damaged_file_is_replaced(
    content: bytes, candidates: dict[str, Candidate], split: Split, images: Pieces, tmp_path: Path
) -> None:
    path = tmp_path / "predictions-val.parquet"
    path.write_bytes(content)
    with pytest.raises(ArtifactError):
        predict.load(path)
    predict.predict(candidates["onnx@onnxruntime"], split, "val", images, path)
    assert len(predict.load(path)) == 40


def test_a_table_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "predictions-val.parquet"
    tables.write(path, tables.frame({"item": ["a"]}), {"kind": "logits"})
    with pytest.raises(ArtifactError, match="does not hold predictions"):
        predict.load(path)


def test_images_of_another_part_are_refused(
    candidates: dict[str, Candidate], split: Split, images: Pieces, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="40 images were given for 'calib', which has 0"):
        predict.predict(candidates["onnx@onnxruntime"], split, "calib", images, tmp_path / "p.parquet")


def test_an_interrupted_prediction_leaves_nothing(
    candidates: dict[str, Candidate], split: Split, images: Pieces, tmp_path: Path
) -> None:
    class Interrupted(Pieces):
        def images(self, rows: slice | np.ndarray) -> np.ndarray:
            if self.asked:
                raise KeyboardInterrupt
            return super().images(rows)

    place = tmp_path / "evidence"
    with pytest.raises(KeyboardInterrupt):
        predict.predict(candidates["onnx@onnxruntime"], split, "val", Interrupted(images.pixels), place / "p.parquet")
    assert not place.exists()
