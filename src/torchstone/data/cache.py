"""The decoded images of a catalog, once on the disk for all candidates and all runs: one uint8 array, memory-mapped.

The arrays of one folder are bounded in size. Before one is made, those that were used least recently go, never one that
a process has open: whoever maps an array holds a shared lock on its file. A catalog that would not fit is decoded on
demand instead.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import shutil
import time
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import filelock
import numpy as np

from torchstone.core import files, tables
from torchstone.core.console import say
from torchstone.core.errors import ConfigError, DataError, from_os_error
from torchstone.core.values import Catalog, Part, Preprocess, Split
from torchstone.data.images import Cached, CatalogImages, Originals, Pixels, Streamed
from torchstone.data.parallel import in_order
from torchstone.data.preprocess import stored_side
from torchstone.data.split import items_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

VERSION = 3
"""Of what is stored and how: raise it when either changes."""

NOT_PIXELS = {"schema_version", "mean", "std", "channels"}
"""Fields of a ``Preprocess`` that belong to the model's graph."""

_limits: dict[Path, int] = {}
"""By cache directory: what this process was told."""
FREE_SHARE = 0.5
"""Of the disk's free space (what the cache holds counts as free) that a cache takes where no limit was set."""
RESERVE = 1 << 30
"""Bytes that stay free on the disk whatever the limit: checkpoints and reports need room, too."""

_told: set[Path] = set()
"""Arrays of which this process has said that they do not fit."""


def open_images(
    catalog: Catalog, split: Split | None, part: Part | None, preprocess: Preprocess, cache_dir: Path
) -> CatalogImages:
    """The images of one part, or all of the catalog where ``part`` is None (another folder, only to be evaluated).

    The first call decodes the whole catalog into ``cache_dir``; later ones, of any part, run, or model with the same
    ``resize``, ``crop`` and decoding rules, open what is there. Where the array would not fit, images are decoded when
    they are asked for. Raises a DataError when an image is no longer the one that was read, a StorageError when the
    disk fills up; neither leaves a file behind.
    """
    table, _ = tables.read(catalog.table)
    originals = _originals(catalog.root, catalog.reader, catalog.table, catalog.table.stat().st_mtime_ns)
    rows = _rows(table, split, part)
    return CatalogImages(originals, rows, _pixels(catalog, originals, preprocess, cache_dir), preprocess)


@lru_cache(maxsize=1)
def _originals(root: str, reader: str, path: Path, _changed: int) -> Originals:
    """Shared by all parts: of 1.3 million images it takes 260 MB. ``_changed`` is the time of the catalog's table."""
    return Originals(root, reader, tables.read(path)[0])


def set_limit(cache_dir: Path, gigabytes: float | None) -> None:
    """Let the arrays in ``cache_dir`` take ``gigabytes`` (10⁹ bytes) as far as this process writes them. 0: none; None:
    a share of the free disk."""
    if gigabytes is None:
        _limits.pop(cache_dir.absolute(), None)
        return
    if not 0 <= gigabytes < math.inf:
        raise ConfigError(f"cache-gb = {gigabytes:g} is refused: it cannot be negative or infinite")
    _limits[cache_dir.absolute()] = int(1e9 * gigabytes)


def limit(cache_dir: Path) -> int:
    """Bytes that the arrays in ``cache_dir`` may take together."""
    if (chosen := _limits.get(cache_dir.absolute())) is not None:
        return chosen
    held = sum(size for _, size in _held(cache_dir))
    return int(FREE_SHARE * (shutil.disk_usage(cache_dir).free + held))


def _rows(table: Any, split: Split | None, part: Part | None) -> NDArray[np.intp]:
    """The table's rows of the part's items, in the order of ``items_of``."""
    if part is None:
        return np.arange(len(table))
    if split is None:
        raise ValueError(f"part '{part}' of no split")
    wanted = tables.frame({"item": items_of(split, part)}, schema={"item": str})
    numbered = table.select("item").with_row_index("row")
    return wanted.join(numbered, on="item", how="left", maintain_order="left")["row"].to_numpy().astype(np.intp)


def _pixels(catalog: Catalog, originals: Originals, preprocess: Preprocess, cache_dir: Path) -> Pixels:
    """All images of the catalog: those stored, made where they are not, or decoded on demand where they do not fit."""
    side = stored_side(preprocess)
    shape = (catalog.images, side, side, 3)
    rules = preprocess.model_dump(mode="json", exclude=NOT_PIXELS)
    key = files.digest([VERSION, catalog.reader, catalog.fingerprint, originals.digest, rules])[:32]
    path = cache_dir / f"{key}.npy"
    if (array := _opened(path, shape)) is not None:
        return Cached(array)
    files.make_directory(cache_dir)
    with files.alone(cache_dir / f"{key}.lock", "decoding the same images"):
        if (array := _opened(path, shape)) is None:
            partial = _reserved(path, math.prod(shape))
            if partial is None:
                return Streamed(originals, preprocess)
            with partial:  # until the array is open: what nobody holds may be removed
                _build(path, partial, shape, originals, preprocess)
                array = _opened(path, shape)
    if array is None:
        raise DataError(f"'{path}' cannot be opened after it was written", hint="is the disk failing?")
    return Cached(array)


def _opened(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    """The stored array, or None where there is none of that shape."""
    try:
        with path.open("rb") as file:
            with contextlib.suppress(OSError):  # a file system without locks: nothing is shared over it, either
                fcntl.flock(file, fcntl.LOCK_SH)  # the mapping keeps a copy of the file open, and with it the lock
            if np.lib.format.read_magic(file) != (1, 0):
                return None
            found, _, kind = np.lib.format.read_array_header_1_0(file)
            if found != shape or kind != np.uint8:
                return None
            array = np.memmap(file, np.uint8, "r", offset=file.tell(), shape=shape)
    except (FileNotFoundError, ValueError, EOFError):
        return None
    with contextlib.suppress(OSError):
        now = time.time_ns()  # the kernel's own clock for files ticks in milliseconds
        os.utime(path, ns=(now, now))
    return array


def _reserved(path: Path, needed: int) -> IO[bytes] | None:
    """The file that becomes ``path``, locked and with its size on record; None where there is no room for it."""
    cache_dir = path.parent
    with filelock.FileLock(cache_dir / "room.lock"):
        allowed = limit(cache_dir)
        if not _room(cache_dir, needed, allowed):
            if path not in _told:
                say(
                    f"note: {needed / 1e9:,.2g} GB of decoded images do not fit into '{cache_dir}', which may take "
                    f"{allowed / 1e9:,.2g} GB: they are decoded each time they are needed (--cache-gb sets the limit)"
                )
            _told.add(path)
            return None
        partial = path.with_suffix(".partial").open("w+b")
        with contextlib.suppress(OSError):
            fcntl.flock(partial, fcntl.LOCK_EX)
            os.truncate(partial.fileno(), needed)  # takes no space yet, and shows others how much it will
        return partial


def _room(cache_dir: Path, needed: int, allowed: int) -> bool:
    """Make room for ``needed`` bytes by removing what was used least recently and is not in use. Where that would not
    be enough, nothing is removed."""
    if needed > allowed:
        return False
    with contextlib.ExitStack() as locks:
        held = sum(size for _, size in _held(cache_dir))
        free = shutil.disk_usage(cache_dir).free - RESERVE - _promised(cache_dir)
        unused = [(path, size) for path, size in _held(cache_dir) if _unused(path, locks)]
        spare = sum(size for _, size in unused)
        if held - spare + needed > allowed or free + spare < needed:
            return False
        for path, size in unused:
            if held + needed <= allowed and free >= needed:
                break
            path.unlink(missing_ok=True)
            held, free = held - size, free + size
    return True


def _held(cache_dir: Path) -> list[tuple[Path, int]]:
    """The arrays in ``cache_dir``, finished and not, with their bytes; the least recently used first."""
    found = []
    for path in (*cache_dir.glob("*.npy"), *cache_dir.glob("*.partial")):
        with contextlib.suppress(FileNotFoundError):
            stat = path.stat()
            found.append((stat.st_mtime_ns, path, stat.st_size))
    return [(path, size) for _, path, size in sorted(found)]


def _promised(cache_dir: Path) -> int:
    """Bytes that the arrays which are being made have yet to take from the disk."""
    missing = 0
    for path in cache_dir.glob("*.partial"):
        with contextlib.suppress(FileNotFoundError):
            stat = path.stat()
            missing += max(0, stat.st_size - 512 * stat.st_blocks)
    return missing


def _unused(path: Path, locks: contextlib.ExitStack) -> bool:
    """Whether no process maps or writes this file; none starts to until ``locks`` are closed."""
    try:
        file = locks.enter_context(path.open("rb"))
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _build(
    path: Path, partial: IO[bytes], shape: tuple[int, ...], originals: Originals, preprocess: Preprocess
) -> None:
    """Decode the whole catalog into ``path``: written beside, then renamed."""

    def stored(row: int) -> NDArray[np.uint8]:
        return originals.stored(row, preprocess, shape[1], check=True)

    beside = Path(partial.name)
    try:
        np.lib.format.write_array_header_1_0(partial, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for pixels in in_order(stored, range(len(originals)), "decoding images"):
            partial.write(pixels.data)  # not into a mapping: a full disk would end the process with SIGBUS
        partial.flush()
        os.fsync(partial.fileno())
        fcntl.flock(partial, fcntl.LOCK_SH)
        beside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.close()  # here: it tries once more to write what could not be written
        error.filename = error.filename or str(beside)
        raise from_os_error(error) or error from None
    finally:
        beside.unlink(missing_ok=True)
