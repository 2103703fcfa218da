"""The reference of a bundle: what validation's images look like, and what the model says of them.

A server compares what it is asked with that. The reference holds numbers alone, no picture and no name: ``reference/``
has ``images.npy``, float32[n, columns], and ``reference.json``, which names the columns.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from torchstone.core import files
from torchstone.core.contracts import ImageSet
from torchstone.core.errors import ArtifactError
from torchstone.core.seeding import generator
from torchstone.core.values import Candidate
from torchstone.data.appearance import QUANTITIES, appearance, side_of
from torchstone.evaluate.metrics import softmax
from torchstone.runtimes import open_candidate

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCHEMA_VERSION = 1
PLACE = "reference"
IMAGES = 1_000
"""Images of validation that are looked at, at most: beyond that, the traffic's own chance is what is left."""
COLUMNS = (*QUANTITIES, "confidence", "class")
"""``class`` is the predicted one's index, ``confidence`` its probability."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What to compare with."""

    columns: tuple[str, ...]
    values: NDArray[np.float32]
    """float32[n, columns]"""


def write(directory: Path, candidate: Candidate, images: ImageSet) -> None:
    """Give the bundle in ``directory`` its reference: some of ``images``, answered by ``candidate``."""
    order = generator(0, PLACE, len(images)).permutation(len(images))
    rows = np.sort(order[:IMAGES])
    runner = open_candidate(candidate)
    values = np.empty((len(rows), len(COLUMNS)), np.float32)
    for place, row in enumerate(rows):
        pixels = images.images(rows[place : place + 1])
        logits = runner(pixels)["logits"][0]
        seen = appearance(pixels[0], side_of(images.encoded(int(row))))
        values[place] = [*seen, softmax(logits).max(), logits.argmax()]
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    content = buffer.getvalue()
    files.write_bytes(directory / PLACE / "images.npy", content)
    header = {
        "schema_version": SCHEMA_VERSION, "part": "val", "images": len(rows), "columns": list(COLUMNS),
        "sha256": hashlib.sha256(content).hexdigest(),
    }  # fmt: skip
    files.write_json(directory / PLACE / "reference.json", header)


def load(directory: Path) -> Reference | None:
    """The reference of a bundle; None where it has none. An ArtifactError for one that is not as it was stored."""
    place = directory / PLACE
    if not place.is_dir():
        return None
    header = files.read_json(place / "reference.json")
    try:
        content = (place / "images.npy").read_bytes()
        if header["schema_version"] != SCHEMA_VERSION:
            raise ArtifactError(
                f"'{place}' has schema version {header['schema_version']}, this torchstone reads {SCHEMA_VERSION}",
                hint="use the torchstone that made the bundle",
            )
        if hashlib.sha256(content).hexdigest() != header["sha256"]:
            raise ArtifactError(
                f"'{place / 'images.npy'}' is not the file that was stored: its sha256 differs",
                hint="copy the bundle again, byte by byte",
            )
        values = np.load(io.BytesIO(content), allow_pickle=False)
        return Reference(columns=tuple(header["columns"]), values=values)
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise ArtifactError(f"'{place}' is no reference: {error!r}", hint="copy the bundle again") from None
