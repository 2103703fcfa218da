"""MNIST's own files, plain or gzipped: ``train-images-idx3-ubyte[.gz]``, ``train-labels-idx1-ubyte[.gz]``, ``t10k-…``.

The format is on http://yann.lecun.com/exdb/mnist: a big-endian magic number (0, 0, type, dimensions), the sizes, the
bytes. Fashion-MNIST, KMNIST and EMNIST come in the same files.
"""

from __future__ import annotations

import gzip
import struct
import threading
import zlib
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from PIL import Image

from torchstone.core.contracts import Listing
from torchstone.core.errors import DataError
from torchstone.data.sources import texts
from torchstone.data.sources.trees import too_large

if TYPE_CHECKING:
    from numpy.typing import NDArray

Stem = Literal["train", "t10k"]
STEMS: tuple[Stem, ...] = ("train", "t10k")
PART = {"train": "train", "t10k": "test"}
Kind = Literal["images", "labels"]
KINDS: dict[Kind, int] = {"images": 3, "labels": 1}
"""Dimensions of each kind of file."""

MAX_BYTES = 2**30
"""Of one file, decompressed; the largest known, EMNIST's 697,932 images, has half of it."""


class MnistIdx:
    """Both stems: train and test. One alone has no split of its own. Classes are the labels that occur."""

    requires: ClassVar[tuple[str, ...]] = ()
    understands: ClassVar[str] = "a folder of MNIST's idx files"

    def accepts(self, root: str) -> bool:
        return any(_file(root, stem, "images") for stem in STEMS)

    def listing(self, root: str) -> Listing:
        stems = [stem for stem in STEMS if _file(root, stem, "images")]
        labels: list[int] = []
        paths: list[str] = []
        parts: list[str | None] = []
        for stem in stems:
            images, its_labels = _array(root, stem, "images"), _array(root, stem, "labels")
            if len(images) != len(its_labels):
                raise DataError(
                    f"'{root}' has {len(images):,} {stem} images and {len(its_labels):,} {stem} labels",
                    hint="take both files from the same place",
                )
            labels += its_labels.tolist()
            paths += [f"{stem}/{index:05d}.png" for index in range(len(images))]
            parts += [PART[stem] if len(stems) > 1 else None] * len(images)
        values = sorted(set(labels))
        if len(values) < 2:
            raise DataError(f"'{root}' holds images of {len(values)} class(es)", hint="two are needed to tell apart")
        index = {value: label for label, value in enumerate(values)}
        return Listing(
            classes=tuple(map(str, values)),
            paths=paths,
            labels=[index[value] for value in labels],
            parts=parts,
            files=[str(_file(root, stem, kind)) for stem in stems for kind in KINDS],
        )

    def image(self, root: str, path: str) -> bytes:
        stem, _, name = path.partition("/")
        if stem not in STEMS:
            raise DataError(f"'{root}' holds no image '{path}'", hint="is it still a folder of idx files?")
        images = _array(root, stem, "images")
        number = texts.number_of(name, len(images))
        if number is None:
            raise DataError(f"'{root}' holds {len(images):,} {stem} images, and none is called '{name}'")
        buffer = BytesIO()
        Image.fromarray(images[number]).save(buffer, "PNG")
        return buffer.getvalue()


def _file(root: str, stem: str, kind: Kind) -> Path | None:
    """The file, under one of the names it goes by."""
    code = f"idx{KINDS[kind]}"
    names = [f"{stem}-{kind}{mark}{code}-ubyte{end}" for mark in "-." for end in ("", ".gz")]
    return next((Path(root) / name for name in names if (Path(root) / name).is_file()), None)


def _array(root: str, stem: str, kind: Kind) -> NDArray[np.uint8]:
    """uint8[n, h, w] or uint8[n]: an idx file, read once a process and again when it has changed."""
    path = _file(root, stem, kind)
    if path is None:
        other = "labels" if kind == "images" else "images"
        raise DataError(f"'{root}' has {stem} {other} and no {stem} {kind}", hint=f"add the file of {stem} {kind}")
    status = path.stat()
    with _one_reads:
        return _read(path, kind, status.st_size, status.st_mtime_ns)


_one_reads = threading.Lock()
"""A cache alone would let every thread that finds it empty read the file."""


@lru_cache(maxsize=4)
def _read(path: Path, kind: Kind, *stamp: int) -> NDArray[np.uint8]:  # noqa: ARG001 - the stamp is part of the key
    """The array in an idx file; a DataError says what does not fit."""
    dimensions = KINDS[kind]
    hint = "copy or download it again"
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"'{path}' is damaged: {error}", hint=hint) from None
    if len(content) > MAX_BYTES:
        raise too_large(str(path), MAX_BYTES)
    header = 4 + 4 * dimensions
    magic = bytes((0, 0, 8, dimensions))
    if content[:4] != magic or len(content) < header:
        raise DataError(
            f"'{path}' is no idx file of {kind}: it starts with {content[:4].hex() or 'nothing'}, not {magic.hex()}",
            hint=hint,
        )
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    expected = header + int(np.prod(shape, dtype=object))
    if len(content) != expected:
        raise DataError(
            f"'{path}' announces {' × '.join(map(str, shape))} bytes and holds {len(content) - header:,}", hint=hint
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
