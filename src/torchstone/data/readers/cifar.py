"""CIFAR's binary version (https://www.cs.toronto.edu/~kriz/cifar.html), unpacked or as it comes, in a ``.tar.gz``.

A record is a label byte (CIFAR-100: the coarse, then the fine one) and 3,072 bytes: the red, green and blue planes of
32 × 32 pixels. The 'python version' is not read: its files are pickles, and opening a pickle runs whatever code is
in it.
"""

from __future__ import annotations

import threading
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np
from PIL import Image

from torchstone.core.contracts import Listing
from torchstone.core.errors import DataError
from torchstone.data.sources import texts
from torchstone.data.sources.names import MAX_NAMES
from torchstone.data.sources.trees import MAX_NOTES, Tree, opened, tree

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE = 32
PIXEL_BYTES = 3 * SIDE * SIDE


class _Kind(NamedTuple):
    """One of the two data sets."""

    parts: dict[str, str]
    """File → part."""
    label_bytes: int
    """The last of them is the label."""
    names: str
    """The file of the classes' names, a line each, in the order of the labels."""
    download: str


KINDS = (
    _Kind(
        parts={**{f"data_batch_{number}.bin": "train" for number in range(1, 6)}, "test_batch.bin": "test"},
        label_bytes=1,
        names="batches.meta.txt",
        download="cifar-10-binary.tar.gz",
    ),
    _Kind(
        parts={"train.bin": "train", "test.bin": "test"},
        label_bytes=2,
        names="fine_label_names.txt",
        download="cifar-100-binary.tar.gz",
    ),
)

PICKLES = (("data_batch_1", "batches.meta", KINDS[0]), ("train", "meta", KINDS[1]))
"""Two files that show the 'python version', and the data set that it is of."""


class Cifar:
    """CIFAR-10, or CIFAR-100 with its 100 fine labels. Batches may be missing; classes are the labels that occur."""

    requires: ClassVar[tuple[str, ...]] = ()
    understands: ClassVar[str] = "CIFAR's binary version"

    def accepts(self, root: str) -> bool:
        place = opened(root)
        return place is not None and (_kind(place) is not None or _pickled(place) is not None)

    def listing(self, root: str) -> Listing:
        place = tree(root)
        kind = _kind(place)
        if kind is None:
            wanted = (_pickled(place) or KINDS[0]).download
            raise DataError(
                f"'{root}' is CIFAR's 'python version': pickles, which run code when they are opened",
                hint=f"download {wanted} from https://www.cs.toronto.edu/~kriz/cifar.html",
            )
        names = texts.lines(place.read(kind.names, MAX_NAMES), kind.names)
        paths: list[str] = []
        parts: list[str | None] = []
        values: list[int] = []
        found = [file for file in kind.parts if place.holds(file)]
        for file in found:
            records = _records(place, file, kind)
            values += records[:, kind.label_bytes - 1].tolist()
            paths += [f"{file.removesuffix('.bin')}/{index:05d}.png" for index in range(len(records))]
            parts += [kind.parts[file]] * len(records)
        used = sorted(set(values))
        if len(used) < 2:
            raise DataError(f"'{root}' holds images of {len(used)} class(es)", hint="two are needed to tell apart")
        if used[-1] >= len(names):
            raise DataError(
                f"'{root}' holds the label {used[-1]}, and '{kind.names}' names {len(names)} classes",
                hint=f"download {kind.download} again",
            )
        label_of = {value: label for label, value in enumerate(used)}
        return Listing(
            classes=tuple(names[value] for value in used),
            paths=paths,
            labels=[label_of[value] for value in values],
            parts=parts,
            files=place.files([*found, kind.names]),
            findings=place.noticed,
        )

    def image(self, root: str, path: str) -> bytes:
        place = tree(root)
        batch, _, name = path.partition("/")
        kind = _kind(place)
        if kind is None or f"{batch}.bin" not in kind.parts:
            raise DataError(f"'{root}' holds no image '{path}'", hint="is it still CIFAR's binary version?")
        records = _records(place, f"{batch}.bin", kind)
        number = texts.number_of(name, len(records))
        if number is None:
            raise DataError(f"'{batch}.bin' of '{root}' holds {len(records):,} images, and none is called '{name}'")
        planes = records[number, kind.label_bytes :].reshape(3, SIDE, SIDE)
        buffer = BytesIO()
        Image.fromarray(np.ascontiguousarray(planes.transpose(1, 2, 0))).save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()


def _kind(place: Tree) -> _Kind | None:
    return next(
        (kind for kind in KINDS if place.holds(kind.names) and any(place.holds(file) for file in kind.parts)), None
    )


def _pickled(place: Tree) -> _Kind | None:
    """The data set whose 'python version' this is."""
    return next((kind for batch, meta, kind in PICKLES if place.holds(batch) and place.holds(meta)), None)


def _records(place: Tree, file: str, kind: _Kind) -> NDArray[np.uint8]:
    """uint8[n, label bytes + 3072]: a batch, read once a process."""
    status = Path(place.files([file])[0]).stat()
    with _one_reads:
        content = _content(place.root, file, status.st_size, status.st_mtime_ns)
    size = kind.label_bytes + PIXEL_BYTES
    if not content or len(content) % size:
        raise DataError(
            f"'{file}' of '{place.root}' has {len(content):,} bytes, which is no number of records of {size:,} bytes",
            hint=f"download {kind.download} again",
        )
    return np.frombuffer(content, np.uint8).reshape(-1, size)


_one_reads = threading.Lock()
"""A cache alone would let every thread that finds it empty read the batch."""


@lru_cache(maxsize=8)
def _content(root: str, file: str, *stamp: int) -> bytes:  # noqa: ARG001 - the stamp is part of the key
    """At most 30 MB a batch of CIFAR-10, 154 MB of CIFAR-100."""
    return tree(root).read(file, MAX_NOTES)
