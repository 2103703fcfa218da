"""MNIST's own files, plain or gzipped: ``train-images-idx3-ubyte[.gz]``, ``train-labels-idx1-ubyte[.gz]``, ``t10k-…``.

The format is on http://yann.lecun.com/exdb/mnist: a big-endian magic number (0, 0, type, dimensions), the sizes, the
bytes. Fashion-MNIST, KMNIST and EMNIST come in the same files.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from PIL import Image

from torchstone.core.contracts import Listing
from torchstone.core.errors import DataError
from torchstone.data.sources.trees import too_large

if TYPE_CHECKING:
    from numpy.typing import NDArray

Stem = Literal["train", "t10k"]
STEMS: tuple[Stem, ...] = ("train", "t10k")
PART = {"train": "train", "t10k": "test"}

MAX_BYTES = 2**30
"""Of one file, decompressed; the largest known, EMNIST's 697,932 images, has half of it."""


class MnistIdx:
    """Both stems: train and test. One alone has no split of its own. Classes are the labels that occur."""

    requires: ClassVar[tuple[str, ...]] = ()
    understands: ClassVar[str] = "a folder of MNIST's idx files"

    def __init__(self) -> None:
        self._images: dict[tuple[str, str], NDArray[np.uint8]] = {}

    def accepts(self, root: str) -> bool:
        return any(_file(root, stem, "images") for stem in STEMS)

    def listing(self, root: str) -> Listing:
        stems = [stem for stem in STEMS if _file(root, stem, "images")]
        labels: list[int] = []
        paths: list[str] = []
        parts: list[str | None] = []
        for stem in stems:
            images = self._array(root, stem)
            its_labels = _read(root, stem, "labels", dimensions=1)
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
            classes=tuple(map(str, values)), paths=paths, labels=[index[value] for value in labels], parts=parts
        )

    def image(self, root: str, path: str) -> bytes:
        stem, _, name = path.partition("/")
        buffer = BytesIO()
        Image.fromarray(self._array(root, stem)[int(name.removesuffix(".png"))]).save(buffer, "PNG")
        return buffer.getvalue()

    def _array(self, root: str, stem: str) -> NDArray[np.uint8]:
        """uint8[n, h, w], read once."""
        if (root, stem) not in self._images:
            self._images[root, stem] = _read(root, stem, "images", dimensions=3)
        return self._images[root, stem]


def _file(root: str, stem: str, kind: Literal["images", "labels"]) -> Path | None:
    """The file, under one of the names it goes by."""
    code = "idx3" if kind == "images" else "idx1"
    names = [f"{stem}-{kind}{mark}{code}-ubyte{end}" for mark in "-." for end in ("", ".gz")]
    return next((Path(root) / name for name in names if (Path(root) / name).is_file()), None)


def _read(root: str, stem: str, kind: Literal["images", "labels"], dimensions: int) -> NDArray[np.uint8]:
    """The array in an idx file; a DataError says what does not fit."""
    path = _file(root, stem, kind)
    if path is None:
        raise DataError(f"'{root}' has {stem} images and no {stem} labels", hint=f"add {stem}-labels-idx1-ubyte.gz")
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
