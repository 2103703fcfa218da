"""The columns of the catalog's table, filled image by image: arrays alone, so that a million images fit in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from torchstone.core import tables
from torchstone.core.contracts import Listing
from torchstone.data import measure, similar
from torchstone.data.preprocess import UPRIGHT, decode_noting

if TYPE_CHECKING:
    from numpy.typing import NDArray

DIGEST_BYTES = 32

TEXT = ("item", "path", "sha256", "group", "part", "time", "format", "converted", "box_picture", "box_annotator")
"""Columns whose type must be said: one without any value has none of its own."""


OWN = {
    "item", "path", "label", "class", "decision", "sha256", "picture", "group", "part", "time", "width", "height",
    "format", "bytes", "converted", *measure.COLUMNS,
}  # fmt: skip
"""What the columns of a catalog are called by themselves, and in a verdict's slices and a cleaned catalog."""
FURTHER = "further"
"""In the header of a catalog's table: the names of the columns that the source brought."""


def further_name(name: str) -> str:
    """The catalog's name for a column of the source that torchstone knows nothing of."""
    return f"source_{name}" if name in OWN or name.startswith("box_") else name


@dataclass(frozen=True, slots=True)
class Look:
    """What decoding one image told."""

    sha256: bytes
    width: int
    height: int
    format: str
    bytes: int
    """Size of the encoded image."""
    converted: str
    """The rules of decoding that had something to do, joined by commas."""
    measures: NDArray[np.float32]
    """``measure.COLUMNS``."""
    thumbnail: NDArray[np.uint8]
    """uint8[SIDE, SIDE] (``similar.thumbnail``)."""


def look(content: bytes) -> Look:
    """All that the catalog keeps of an encoded image, from decoding it once; a DataError says why it is not usable."""
    decoded = decode_noting(content, UPRIGHT)
    height, width = decoded.pixels.shape[:2]
    luma = measure.luma_of(decoded.pixels)
    return Look(
        sha256=pixels_digest(decoded.pixels),
        width=width,
        height=height,
        format=decoded.format,
        bytes=len(content),
        converted=",".join(decoded.conversions),
        measures=measure.measure(luma),
        thumbnail=similar.thumbnail(luma),
    )


def pixels_digest(pixels: NDArray[np.uint8]) -> bytes:
    """SHA-256 of decoded pixels and their shape."""
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()


class Columns:
    """Room for ``size`` images, of which those that are added are used."""

    def __init__(self, size: int, thumbnails: NDArray[np.uint8]) -> None:
        """``thumbnails`` is uint8[size, SIDE, SIDE] to write to."""
        self.used = 0
        self._row = np.empty(size, np.int32)
        self._digest = np.empty((size, DIGEST_BYTES), np.uint8)
        self._sides = np.empty((2, size), np.int32)
        self._bytes = np.empty(size, np.int64)
        self._measures = np.empty((len(measure.COLUMNS), size), np.float32)
        self._format, self._converted = _Words(size), _Words(size)
        self._thumbnails = thumbnails

    def add(self, row: int, seen: Look) -> None:
        """``row`` is that of the listing."""
        at = self.used
        self._row[at] = row
        self._digest[at] = np.frombuffer(seen.sha256, np.uint8)
        self._sides[:, at] = seen.width, seen.height
        self._bytes[at] = seen.bytes
        self._measures[:, at] = seen.measures
        self._format.put(at, seen.format)
        self._converted.put(at, seen.converted)
        self._thumbnails[at] = seen.thumbnail
        self.used += 1

    @property
    def rows(self) -> NDArray[np.int32]:
        """The listing's row of each image."""
        return self._row[: self.used]

    @property
    def digests(self) -> NDArray[np.uint8]:
        """uint8[used, 32]: SHA-256 of each image's pixels."""
        return self._digest[: self.used]

    @property
    def thumbnails(self) -> NDArray[np.uint8]:
        return self._thumbnails[: self.used]

    @property
    def short_sides(self) -> NDArray[np.int32]:
        """The smaller of width and height, in pixels."""
        return self._sides[:, : self.used].min(axis=0)

    def table(self, listing: Listing, picture: NDArray[np.int32]) -> Any:
        """The polars table (core.values.Catalog), one row an image added, in the listing's order."""
        rows = self.rows
        items = _taken(listing.paths, rows)
        columns: dict[str, Any] = {
            "item": items,
            "path": items,
            "label": np.asarray(listing.labels, np.int32)[rows],
            "sha256": hex_of(self.digests),
            "picture": picture,
            "group": _taken(listing.groups, rows),
            "part": _taken(listing.parts, rows),
            "time": _taken(listing.times, rows),
            "width": self._sides[0, : self.used],
            "height": self._sides[1, : self.used],
            "format": self._format.words(self.used),
            "bytes": self._bytes[: self.used],
            "converted": self._converted.words(self.used),
        }
        for name, values in zip(measure.COLUMNS, self._measures, strict=True):
            columns[name] = values[: self.used]
        if listing.boxes:
            columns |= _box_columns(listing, rows)
        texts = [name for name in TEXT if name in columns]
        for name, cells in listing.further.items():
            own = further_name(name)
            columns[own] = _taken(cells, rows)
            if not any(isinstance(cell, float) for cell in cells):
                texts.append(own)
        return tables.frame(columns, schema=dict.fromkeys(texts, str))


def _box_columns(listing: Listing, rows: NDArray[np.int32]) -> dict[str, Any]:
    """What ``contracts.Box`` has, a column each; annotated sizes beyond any picture's are cut to the largest number."""
    picture, x0, y0, x1, y1, width, height, annotator = zip(*_taken(listing.boxes, rows), strict=True)
    most = np.iinfo(np.int32).max
    corners = {"box_x0": x0, "box_y0": y0, "box_x1": x1, "box_y1": y1}
    sizes = {"box_width": width, "box_height": height}
    return {
        "box_picture": list(picture),
        **{name: np.array(values, np.float64) for name, values in corners.items()},
        **{name: np.array([min(value, most) for value in values], np.int32) for name, values in sizes.items()},
        "box_annotator": list(annotator),
    }


def hex_of(digests: NDArray[np.uint8]) -> NDArray[np.bytes_]:
    """S64[n]: uint8[n, 32] in hexadecimal digits."""
    return np.frombuffer(digests.tobytes().hex().encode(), f"S{2 * DIGEST_BYTES}")


def _taken(column: Sequence[Any], rows: NDArray[np.int32]) -> list[Any]:
    """A listing's column for these rows; an empty one has nothing for any."""
    return [column[row] for row in rows.tolist()] if len(column) else [None] * len(rows)


class _Words:
    """A column of a few different words."""

    def __init__(self, size: int) -> None:
        self._code_of: dict[str, int] = {}
        self._codes = np.empty(size, np.int16)

    def put(self, at: int, word: str) -> None:
        self._codes[at] = self._code_of.setdefault(word, len(self._code_of))

    def words(self, used: int) -> list[str]:
        words = list(self._code_of)
        return [words[code] for code in self._codes[:used].tolist()]
