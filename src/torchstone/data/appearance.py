"""What a picture looks like, in a few numbers that a change of camera, light or cutting would move."""

from __future__ import annotations

import math
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from torchstone.data.decode import FORMATS
from torchstone.data.measure import luma_of, sharpness

if TYPE_CHECKING:
    from numpy.typing import NDArray

QUANTITIES = (
    "red", "green", "blue", "contrast of red", "contrast of green", "contrast of blue", "sharpness", "side",
)  # fmt: skip
"""Mean and standard deviation of each channel of what the model sees, on 0..1; its sharpness (``measure.sharpness``);
and the side of the square with as many pixels as the file has."""


def appearance(pixels: NDArray[np.uint8], side: float) -> NDArray[np.float32]:
    """float32[len(QUANTITIES)] of a prepared image, uint8[crop, crop, 3], and the ``side_of`` its file."""
    flat = pixels.reshape(-1, 3).astype(np.float32)
    detail = sharpness(luma_of(pixels))
    return np.array([*flat.mean(axis=0) / 255, *flat.std(axis=0) / 255, detail, side], np.float32)


def side_of(content: bytes) -> float:
    """√(width · height) of an encoded image, by its header; NaN for what is none of those that are decoded."""
    try:
        with Image.open(BytesIO(content), formats=FORMATS) as image:
            return math.sqrt(image.width * image.height)
    except Exception:  # whatever Pillow's parsing of bytes from outside runs into: they are refused elsewhere
        return math.nan
