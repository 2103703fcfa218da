"""The decoded images of a catalog, once on the disk for all candidates and all runs: one uint8 array, memory-mapped."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock
import numpy as np

from torchstone.core import files, tables
from torchstone.core.console import say
from torchstone.core.contracts import Reader
from torchstone.core.errors import DataError, StorageError, from_os_error
from torchstone.core.registry import readers
from torchstone.core.values import Catalog, Part, Preprocess, Split
from torchstone.data.catalog import pixels_sha256
from torchstone.data.parallel import in_order
from torchstone.data.preprocess import decode, fit, stored_side
from torchstone.data.split import items_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

VERSION = 1
"""Of what is stored and how: raise it when either changes."""

NOT_PIXELS = {"schema_version", "mean", "std", "channels"}
"""Fields of a ``Preprocess`` that belong to the model's graph."""


class CachedImages:
    """Some images of a catalog, decoded (contracts.ImageSet)."""

    def __init__(self, catalog: Catalog, table: Any, rows: Sequence[int], pixels: NDArray[np.uint8], crop: int) -> None:
        """``rows`` are those of the catalog's ``table`` and of ``pixels``, uint8[catalog.images, s, s, 3]."""
        self.items: Sequence[str] = table["item"].gather(rows).to_list()
        self.labels: NDArray[np.int64] = table["label"].gather(rows).to_numpy().astype(np.int64)
        self._paths: Sequence[str] = table["path"].gather(rows).to_list()
        self._rows = np.array(rows, np.intp)
        self._pixels = pixels
        self._crop = crop
        self._root = catalog.root
        self._reader = readers.get(catalog.reader)

    def __len__(self) -> int:
        return len(self._rows)

    def images(self, rows: slice | NDArray[np.intp]) -> NDArray[np.uint8]:
        """uint8[n, crop, crop, 3]: what evaluation, calibration and the server see."""
        start = (self._pixels.shape[1] - self._crop) // 2
        middle = slice(start, start + self._crop)
        return np.ascontiguousarray(self._pixels[self._rows[rows], middle, middle])

    def stored(self, rows: slice | NDArray[np.intp]) -> NDArray[np.uint8]:
        """uint8[n, s, s, 3] with s ≥ crop: the room that training's random crops have."""
        return self._pixels[self._rows[rows]]

    def encoded(self, row: int) -> bytes:
        """The original file of one image."""
        return self._reader.image(self._root, self._paths[row])


def open_images(
    catalog: Catalog, split: Split | None, part: Part | None, preprocess: Preprocess, cache_dir: Path
) -> CachedImages:
    """The images of one part, or all of the catalog where ``part`` is None (another folder, only to be evaluated).

    The first call decodes the whole catalog into ``cache_dir``; later ones, of any part, run, or model with the same
    ``resize``, ``crop`` and decoding rules, open what is there. Raises a DataError when an image is no longer the one
    that was read, a StorageError when the disk is full; neither leaves a file behind.
    """
    table, _ = tables.read(catalog.table)
    if part is None:
        rows = list(range(catalog.images))
    elif split is None:
        raise ValueError(f"part '{part}' of no split")
    else:
        row_of = {item: row for row, item in enumerate(table["item"].to_list())}
        rows = [row_of[item] for item in items_of(split, part)]
    pixels = _pixels(catalog, table, preprocess, cache_dir)
    return CachedImages(catalog, table, rows, pixels, preprocess.crop)


def _pixels(catalog: Catalog, table: Any, preprocess: Preprocess, cache_dir: Path) -> NDArray[np.uint8]:
    """uint8[catalog.images, s, s, 3], read-only; made when it is not there."""
    side = stored_side(preprocess)
    shape = (catalog.images, side, side, 3)
    content = [table["item"].to_list(), table["sha256"].to_list()]
    rules = preprocess.model_dump(mode="json", exclude=NOT_PIXELS)
    key = files.digest([VERSION, catalog.reader, catalog.fingerprint, files.digest(content), rules])[:32]
    path = cache_dir / f"{key}.npy"
    if (pixels := _opened(path, shape)) is not None:
        return pixels
    cache_dir.mkdir(parents=True, exist_ok=True)
    with _alone(cache_dir / f"{key}.lock"):
        if (pixels := _opened(path, shape)) is None:
            _build(path, shape, catalog, table, preprocess)
            pixels = _opened(path, shape)
    if pixels is None:
        raise DataError(f"'{path}' cannot be opened after it was written", hint="is the disk failing?")
    return pixels


def _opened(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    """The stored array, or None where there is none of that shape."""
    try:
        pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    except (FileNotFoundError, ValueError, EOFError):
        return None
    return pixels if pixels.shape == shape and pixels.dtype == np.uint8 else None


def _build(path: Path, shape: tuple[int, ...], catalog: Catalog, table: Any, preprocess: Preprocess) -> None:
    """Decode the whole catalog into ``path``: written beside, then renamed."""
    needed, free = math.prod(shape), shutil.disk_usage(path.parent).free
    if needed > free:
        raise StorageError(
            f"the decoded images need {needed / 1e6:,.0f} MB at '{path.parent}', and {free / 1e6:,.0f} MB are free",
            hint="free some space, or train at a smaller size",
        )
    reader = readers.ready(catalog.reader)
    rows = list(zip(table["path"].to_list(), table["sha256"].to_list(), strict=True))

    def stored(row: tuple[str, str]) -> NDArray[np.uint8]:
        pixels = _same_pixels(reader, catalog.root, *row, preprocess)
        return fit(pixels, preprocess, shape[1])

    partial = path.with_suffix(".partial")
    try:
        with partial.open("wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for pixels in in_order(stored, rows, "decoding images"):
                file.write(pixels.data)  # not into a mapping: a full disk would end the process with SIGBUS
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        error.filename = error.filename or str(partial)
        raise from_os_error(error) or error from None
    finally:
        partial.unlink(missing_ok=True)


def _same_pixels(reader: Reader, root: str, path: str, sha256: str, preprocess: Preprocess) -> NDArray[np.uint8]:
    """An image's pixels, uint8[h, w, 3], after checking that they are those that the split was made by."""
    try:
        pixels = decode(reader.image(root, path), preprocess)
    except (OSError, DataError) as error:
        reason = error.message if isinstance(error, DataError) else error.strerror
        raise DataError(
            f"'{path}' of '{root}' could be read before and cannot any more: {reason}",
            hint="put the file back, or start a new run",
        ) from None
    # The hash in the catalog is of the upright image.
    if preprocess.exif_rotation == "apply" and pixels_sha256(pixels) != sha256:
        raise DataError(
            f"'{path}' of '{root}' is not the image that was read before: its pixels differ",
            hint="start a new run: the images changed, or they are decoded by another version of Pillow",
        )
    return pixels


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """A second process waits for the first, and then finds the file."""
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        say("another process is decoding the same images: waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
