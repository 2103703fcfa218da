"""The images of a catalog as a model sees them (contracts.ImageSet): from an array of decoded pixels, or decoded anew
each time they are asked for."""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from torchstone.core.errors import DataError
from torchstone.core.registry import readers
from torchstone.core.values import Preprocess
from torchstone.data import preprocess as preprocessing
from torchstone.data.catalog import pixels_sha256
from torchstone.data.parallel import mapped

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHUNK = 4
"""Images a task of one thread, where a batch is decoded on demand."""


class Pixels(Protocol):
    """Where prepared pixels come from."""

    def take(self, rows: NDArray[np.intp], side: int) -> NDArray[np.uint8]:
        """uint8[n, side, side, 3] of these rows of the catalog, in memory of their own."""
        ...


class CatalogImages:
    """Some images of a catalog."""

    def __init__(self, originals: Originals, rows: NDArray[np.intp], pixels: Pixels, preprocess: Preprocess) -> None:
        """``rows`` are those of the catalog's table."""
        # Arrays of strings where the contract has a Sequence: as objects, a million names would take 100 MB.
        self.items = cast("Sequence[str]", originals.items[rows])
        self.labels: NDArray[np.int64] = originals.labels[rows]
        self.pixels = pixels
        self._originals = originals
        self._rows = rows
        self._crop = preprocess.crop
        self._side = preprocessing.stored_side(preprocess)

    def __len__(self) -> int:
        return len(self._rows)

    def images(self, rows: slice | NDArray[np.intp]) -> NDArray[np.uint8]:
        """uint8[n, crop, crop, 3]: what evaluation, calibration and the server see."""
        return self.pixels.take(self._rows[rows], self._crop)

    def stored(self, rows: slice | NDArray[np.intp]) -> NDArray[np.uint8]:
        """uint8[n, s, s, 3] with s ≥ crop: the room that training's random crops have."""
        return self.pixels.take(self._rows[rows], self._side)

    def encoded(self, row: int) -> bytes:
        """The original file of one image."""
        return self._originals.encoded(int(self._rows[row]))


class Originals:
    """The encoded images of a catalog by row, each checked to be the one that the catalog describes."""

    def __init__(self, root: str, reader: str, table: Any) -> None:
        strings = np.dtypes.StringDType()
        self.items: NDArray[Any] = np.array(table["item"].to_list(), strings)
        self.labels: NDArray[np.int64] = table["label"].to_numpy().astype(np.int64)
        self._paths: NDArray[Any] = np.array(table["path"].to_list(), strings)
        self._sha256 = np.array(table["sha256"].to_list(), "S64")
        self._bytes = table["bytes"].to_numpy()
        self.digest = _digest(table)
        """Changes with the name or the pixels of any image, or their order."""
        self._root = root
        self._reader = readers.ready(reader)

    def __len__(self) -> int:
        return len(self.labels)

    def encoded(self, row: int) -> bytes:
        return self._reader.image(self._root, self._paths[row])

    def stored(self, row: int, preprocess: Preprocess, side: int, *, check: bool) -> NDArray[np.uint8]:
        """``preprocess.stored`` of one image. A DataError where it can no longer be read, or is another one.

        With ``check``, its pixels are compared with the catalog's digest, which is of upright pixels from Pillow. With
        other rules of decoding the length of the file has to do: an image may be exchanged between two commands, which
        is noticed by its time (``catalog.source_digest``), and hardly ever during one.
        """
        comparable = preprocess.decoder == "pillow" and preprocess.exif_rotation == "apply"
        content = self._read(row)
        try:
            if not (check and comparable):
                return preprocessing.stored(content, preprocess, side)
            pixels = preprocessing.decode(content, preprocess)
        except DataError as error:
            raise self._gone(row, error.message) from None
        if pixels_sha256(pixels).encode() != self._sha256[row]:
            raise self._changed(row, "its pixels differ")
        return preprocessing.fit(pixels, preprocess, side)

    def _read(self, row: int) -> bytes:
        try:
            content = self.encoded(row)
        except OSError as error:
            raise self._gone(row, error.strerror or str(error)) from None
        except DataError as error:
            raise self._gone(row, error.message) from None
        if len(content) != self._bytes[row]:
            raise self._changed(row, f"it has {len(content):,} bytes, and had {self._bytes[row]:,}")
        return content

    def _gone(self, row: int, reason: str) -> DataError:
        return DataError(
            f"'{self._paths[row]}' of '{self._root}' could be read before and cannot any more: {reason}",
            hint="put the file back, or start a new run",
        )

    def _changed(self, row: int, how: str) -> DataError:
        return DataError(
            f"'{self._paths[row]}' of '{self._root}' is not the image that was read before: {how}",
            hint="start a new run: the images changed, or they are decoded by another version of Pillow",
        )


def _digest(table: Any) -> str:
    digest = hashlib.sha256()
    for some in table.select("item", "sha256").iter_slices(10_000):
        digest.update(json.dumps(some.rows()).encode())
    return digest.hexdigest()


class Cached:
    """Pixels from an array of all images of the catalog, uint8[images, s, s, 3]."""

    def __init__(self, array: NDArray[np.uint8]) -> None:
        self.array = array

    def take(self, rows: NDArray[np.intp], side: int) -> NDArray[np.uint8]:
        middle = preprocessing.centre_crop(self.array, side)
        out = np.empty((len(rows), side, side, 3), np.uint8)
        for place, row in zip(out, rows, strict=True):  # faster than an index array: each is one plain copy
            place[:] = middle[row]
        return out


class Streamed:
    """Pixels decoded each time, from threads; each image is compared with the catalog the first time it is met."""

    def __init__(self, originals: Originals, preprocess: Preprocess) -> None:
        self._originals = originals
        self._preprocess = preprocess
        # Shared with forked workers, so that the comparison is made once and not once an epoch.
        self._met = np.frombuffer(mmap.mmap(-1, max(1, len(originals))), np.uint8)

    def take(self, rows: NDArray[np.intp], side: int) -> NDArray[np.uint8]:
        out = np.empty((len(rows), side, side, 3), np.uint8)
        for place, pixels in zip(out, mapped(lambda row: self._one(row, side), rows.tolist(), CHUNK), strict=True):
            place[:] = pixels
        return out

    def _one(self, row: int, side: int) -> NDArray[np.uint8]:
        pixels = self._originals.stored(row, self._preprocess, side, check=not self._met[row])
        self._met[row] = 1
        return pixels
