"""Real images for the tests of the data rooms: scikit-learn's two photos, and the sets of ../shared/data."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture(scope="session")
def photo() -> Image.Image:
    """scikit-learn's photo of a flower, 640 × 427."""
    return Image.open(photo_path("flower.jpg")).convert("RGB")


@pytest.fixture(scope="session")
def photo_bytes() -> bytes:
    """The JPEG file of a Chinese temple, 640 × 427."""
    return photo_path("china.jpg").read_bytes()


def photo_path(name: str) -> Path:
    import sklearn.datasets

    return Path(sklearn.datasets.__file__).parent / "images" / name


def cutting(photo: Image.Image, number: int, size: int = 24) -> Image.Image:
    """A small piece of the photo, another one for each number."""
    left, top = number * 5 % (photo.width - size), number * 11 % (photo.height - size)
    return photo.crop((left, top, left + size, top + size))


@pytest.fixture
def make_folder(tmp_path: Path, photo: Image.Image) -> Callable[..., Path]:
    """``make_folder({"cat": 5, "dog": 7})``: class folders with that many different small PNG files."""

    def make(counts: dict[str, int], root: Path = tmp_path / "images", start: int = 0) -> Path:
        number = start
        for name, count in counts.items():
            (root / name).mkdir(parents=True, exist_ok=True)
            for index in range(count):
                cutting(photo, number).save(root / name / f"{index}.png")
                number += 1
        return root

    return make


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``shared("flowers5")``: that set of ../shared/data, unpacked; the test is skipped where it is absent."""

    def unpack(name: str) -> Path:
        if (SHARED / name).is_dir():
            return SHARED / name
        archive = SHARED / f"{name}.tar"
        if not archive.exists():
            pytest.skip(f"needs ../shared/data/{name}.tar, which is not here")
        place = tmp_path_factory.getbasetemp() / "shared"
        if not (place / name).exists():
            with tarfile.open(archive) as tar:
                tar.extractall(place, filter="data")
        return place / name

    return unpack


@pytest.fixture
def grey_ramp() -> np.ndarray:
    """uint8[16, 16] with each value from 0 to 255 once."""
    return np.arange(256, dtype=np.uint8).reshape(16, 16)
