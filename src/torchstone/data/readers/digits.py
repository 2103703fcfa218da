"""The digits that come with scikit-learn: 1,797 handwritten digits of 8 × 8 pixels (UCI ML Optical Recognition)."""

from __future__ import annotations

from functools import cache
from io import BytesIO
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from PIL import Image

from torchstone.core.contracts import Listing
from torchstone.core.errors import DataError
from torchstone.data.sources import texts

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Digits:
    """The reserved word ``digits``. A folder of that name is read as ``./digits``."""

    requires: ClassVar[tuple[str, ...]] = ("sklearn",)
    understands: ClassVar[str] = "'digits'"

    def accepts(self, root: str) -> bool:
        return root == "digits"

    def listing(self, root: str) -> Listing:
        _, labels = _digits()
        return Listing(
            classes=tuple("0123456789"),
            paths=[f"{index:04d}.png" for index in range(len(labels))],
            labels=labels,
            parts=[None] * len(labels),
        )

    def image(self, root: str, path: str) -> bytes:
        images, _ = _digits()
        number = texts.number_of(path, len(images))
        if number is None:
            raise DataError(f"'{root}' holds {len(images):,} images, and none is called '{path}'")
        buffer = BytesIO()
        Image.fromarray(images[number]).save(buffer, "PNG")
        return buffer.getvalue()


@cache
def _digits() -> tuple[NDArray[np.uint8], list[int]]:
    """uint8[1797, 8, 8] with 0..16 stretched to 0..255, and the labels."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    scaled = np.rint(images.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    return scaled, [int(label) for label in labels]
