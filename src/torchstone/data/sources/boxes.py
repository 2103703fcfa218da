"""Boxes on pictures, as images to classify: each item is what one box cuts out of its picture.

An item's path is the picture's, ``#`` and the box: ``JPEGImages/7.jpg#12,30,44,96``; a second box at the same place has
``~2`` behind it. So an item keeps its name when other boxes come or go, and its image is found by its name alone.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image

from torchstone.core.contracts import Box, Listing
from torchstone.core.errors import DataError
from torchstone.core.values import Finding
from torchstone.data.findings import ITEMS_NAMED, count_of, name_a_few
from torchstone.data.preprocess import UPRIGHT, decode
from torchstone.data.sources.trees import Tree, natural

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LARGEST = 1e7
"""Pixels: no picture is so large, and arithmetic on such coordinates stays exact."""


class Drawn(NamedTuple):
    """A box, what is in it, and the part that its picture belongs to."""

    box: Box
    name: str
    part: str | None


class Unusable(NamedTuple):
    """An annotation that cannot be used, or a file of them."""

    item: str
    reason: str


def listing(
    root: str, drawn: Sequence[Drawn], unusable: Sequence[Unusable], files: Sequence[str], findings: Sequence[Finding]
) -> Listing:
    """An item for each box; the boxes of one picture are a group. Raises a DataError for fewer than two classes."""
    classes = sorted({name for _, name, _ in drawn}, key=natural)
    if len(classes) < 2:
        reason = f" ({unusable[0].item}: {unusable[0].reason})" if unusable else ""
        known = f"only of '{classes[0]}'" if classes else f"none at all{reason}"
        raise DataError(f"'{root}' holds boxes of fewer than two classes: {known}", hint="nothing can be told apart")
    label_of = {name: label for label, name in enumerate(classes)}
    return Listing(
        classes=tuple(classes),
        paths=_paths([box for box, _, _ in drawn]),
        labels=[label_of[name] for _, name, _ in drawn],
        parts=[part for _, _, part in drawn],
        groups=[box.picture for box, _, _ in drawn],
        boxes=[box for box, _, _ in drawn],
        files=files,
        findings=(*findings, *_left_out(unusable)),
    )


def image(place: Tree, path: str) -> bytes:
    """The pixels in the box, as a lossless PNG of the whole pixels that it touches.

    Raises a DataError for a box of no area or beside its picture, and where the picture cannot be decoded.
    """
    picture, _, rest = path.rpartition("#")
    try:
        x0, y0, x1, y1 = map(float, rest.partition("~")[0].split(","))
        left, top, right, bottom = math.floor(x0), math.floor(y0), math.ceil(x1), math.ceil(y1)
    except (ValueError, OverflowError):
        raise DataError(f"'{path}' names no box", hint="read the source again") from None
    if not (x0 < x1 and y0 < y1):
        raise DataError("the box has no area", hint="correct or delete it in the annotations")
    pixels = _decoded(place, picture)
    height, width = pixels.shape[:2]
    cut = pixels[max(0, top) : min(height, bottom), max(0, left) : min(width, right)]
    if bottom <= 0 or right <= 0 or not cut.size:
        raise DataError(f"the box lies beside its picture of {width} × {height} pixels", hint="correct or delete it")
    buffer = BytesIO()
    Image.fromarray(cut).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def number(text: object) -> float:
    """A coordinate from outside; a TypeError or ValueError for what is no finite number."""
    try:
        value = float(text)  # type: ignore[arg-type] - the TypeError is meant
    except OverflowError:  # a whole number of hundreds of digits
        value = math.inf
    if not abs(value) <= LARGEST:
        raise ValueError(f"{str(text)[:20]} is no coordinate")
    return value


def _paths(boxes: Sequence[Box]) -> list[str]:
    seen: Counter[str] = Counter()
    paths = []
    for box in boxes:
        path = f"{box.picture}#" + ",".join(f"{value:.10g}" for value in (box.x0, box.y0, box.x1, box.y1))
        seen[path] += 1
        paths.append(path if seen[path] == 1 else f"{path}~{seen[path]}")
    return paths


def _left_out(unusable: Sequence[Unusable]) -> list[Finding]:
    if not unusable:
        return []
    reasons = dict(unusable[:ITEMS_NAMED])
    return [
        Finding(
            check="annotations",
            severity="warning",
            message=f"{count_of(len(unusable), 'annotation')} that cannot be used: "
            + name_a_few(f"{item} ({reason})" for item, reason in unusable),
            hint="mend the files; the other boxes are read",
            items=tuple(reasons),
            evidence={"annotations": len(unusable), "reasons": reasons},
        )
    ]


class _Last(threading.local):
    """The picture that this thread decoded last: its boxes stand one after the other."""

    key: tuple[str, str, int] | None = None
    pixels: NDArray[np.uint8] | None = None


_last = _Last()


def _decoded(place: Tree, picture: str) -> NDArray[np.uint8]:
    content = place.read(picture)
    key = (place.root, picture, hash(content))
    if _last.pixels is None or _last.key != key:
        _last.key, _last.pixels = None, None  # not two at a time
        pixels = decode(content, UPRIGHT)
        _last.key, _last.pixels = key, pixels
    return _last.pixels
