"""Small pictures as data URIs."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 144
"""Longest side in pixels: twice what the page shows, for dense screens."""


def data_uri(pixels: NDArray[np.uint8], side: int = SIDE) -> str:
    """uint8[h, w, 3] as a JPEG data URI of at most ``side`` pixels; smaller images keep their size (the browser
    enlarges them without blur). About 5 kB at 144 pixels."""
    image = Image.fromarray(pixels)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small = max(image.size) <= 64
    image.save(buffer, format="JPEG", quality=92 if small else 80, subsampling=0 if small else 2, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
