"""Small pictures as data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from torchstone.core import registry
from torchstone.core.errors import DataError, UserError
from torchstone.core.values import Catalog
from torchstone.data.columns import UPRIGHT
from torchstone.data.parallel import in_order
from torchstone.data.preprocess import decode

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


def uris(catalog: Catalog, rows: Sequence[dict[str, Any]]) -> tuple[dict[str, str], str | None]:
    """Item → data URI, and a note when some could not be read (a data set that was moved)."""
    try:
        reader = registry.readers.ready(catalog.reader)
    except UserError as error:
        return {}, error.message

    def uri(row: dict[str, Any]) -> str | DataError | OSError:
        try:
            return data_uri(decode(reader.image(catalog.root, row["path"]), UPRIGHT))
        except (DataError, OSError) as error:
            return error

    found, note = {}, None
    for row, result in zip(rows, in_order(uri, rows, "showing images"), strict=True):
        if isinstance(result, str):
            found[row["item"]] = result
        else:
            note = note or f"Some images could not be read again: {result}"
    return found, note
