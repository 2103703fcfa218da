"""Reading a source: every image is decoded once, and only those that can be used enter the catalog."""

from __future__ import annotations

import difflib
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from torchstone.core import files, tables
from torchstone.core.contracts import Listing, Reader
from torchstone.core.errors import DataError
from torchstone.core.registry import readers
from torchstone.core.values import Catalog, Finding
from torchstone.data import findings as reported
from torchstone.data.findings import ITEMS_NAMED, count_of, name_a_few
from torchstone.data.parallel import in_order
from torchstone.data.preprocess import Conversion, decode_noting, default_preprocess

if TYPE_CHECKING:
    from numpy.typing import NDArray

GENERAL_READER = "folder"
"""Takes any directory, so it is asked last."""

UPRIGHT = default_preprocess(1)
"""The catalog's hashes are of whole images, so that of a ``Preprocess`` only the rules of decoding matter here."""

CONVERTED: dict[Conversion, str] = {
    "exif-rotated": "the rotation in their EXIF data was applied to",
    "alpha": "transparent pixels were laid on white in",
    "16-bit": "the upper 8 of 16 bits were kept in",
    "cmyk": "CMYK was converted to RGB, without a colour profile, in",
    "animated": "only the first of several frames was taken from",
}


@dataclass(frozen=True)
class _Image:
    """What decoding one image told: its columns of the table, or why it is not usable."""

    sha256: str = ""
    width: int = 0
    height: int = 0
    conversions: tuple[Conversion, ...] = ()
    error: str | None = None


def read(source: str, out_dir: Path) -> Catalog:
    """Decode every image of ``source`` and write ``catalog.parquet``, ``findings.json`` and ``catalog.json``.

    ``source`` is a path or a reserved word such as ``digits``. Images that cannot be used are left out and each has a
    finding (``unreadable``); images that had to be converted are counted (``converted``). Raises a DataError when
    nothing here can be learned from: no reader takes the source, or a class has no usable image.
    """
    root, name = find_reader(source)
    reader = readers.ready(name, "polars")
    listing = reader.listing(root)
    images = list(in_order(lambda path: _look(reader, root, path), listing.paths, "reading images"))

    usable = [row for row, image in enumerate(images) if image.error is None]
    noticed = [*listing.findings, *_unreadable(listing.paths, images), *_converted(listing.paths, images)]
    _check_classes(listing, usable, images, root)
    columns = {
        "item": [listing.paths[row] for row in usable],
        "path": [listing.paths[row] for row in usable],
        "label": np.array([listing.labels[row] for row in usable], np.int32),
        "sha256": [images[row].sha256 for row in usable],
        "width": np.array([images[row].width for row in usable], np.int32),
        "height": np.array([images[row].height for row in usable], np.int32),
        "group": [None] * len(usable),
        "part": [listing.parts[row] for row in usable],
    }
    table_path = out_dir / "catalog.parquet"
    table = tables.frame(columns, schema={"group": str, "part": str})
    tables.write(table_path, table, {"root": root, "reader": name})
    reported.store(out_dir, noticed)
    catalog = Catalog(
        root=root,
        reader=name,
        classes=listing.classes,
        images=len(usable),
        fingerprint=fingerprint(columns["sha256"], columns["label"]),
        table=table_path,
    )
    catalog.save(out_dir / "catalog.json")  # last: where it is, the rest is there, too
    return catalog


def source_digest(source: str) -> str:
    """Changes when the source does: over the names, labels, sizes and times of its files, none of which is opened."""
    root, name = find_reader(source)
    listing = readers.ready(name).listing(root)
    place = Path(root)
    beside = sorted(place.iterdir()) if place.is_dir() else []
    stats = []
    for path in [place, *beside, *(place / path for path in listing.paths)]:
        if path.is_file():  # the images of some sources are not files of their own
            stat = path.stat()
            stats.append([stat.st_size, stat.st_mtime_ns])
    return files.digest([name, root, listing.classes, list(listing.paths), list(listing.labels), stats])


def find_reader(source: str) -> tuple[str, str]:
    """The root and the name of the reader that takes it. A path is made absolute: a run can go on from elsewhere."""
    path = Path(source).expanduser()
    absolute = str(path.resolve())
    for name in sorted(readers.names(), key=lambda name: (name == GENERAL_READER, name)):
        reader = readers.get(name)
        if reader.accepts(absolute):
            return absolute, name
        if reader.accepts(source):
            return source, name
    understood = "understood: a folder of class folders, a folder of MNIST's idx files, or 'digits'"
    if path.is_file():
        raise DataError(f"'{source}' is a file, not a folder of images", hint=f"unpack it; {understood}")
    if path.exists():
        raise DataError(f"'{source}' is nothing that a reader takes", hint=understood)
    siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, [*siblings, "digits"], n=1, cutoff=0.6)
    if close:
        meant = close[0] if close[0] not in siblings else str(path.parent / close[0])
        raise DataError(f"'{source}' does not exist", hint=f"did you mean '{meant}'?")
    raise DataError(f"'{source}' does not exist", hint=understood)


def fingerprint(hashes: Iterable[str], labels: Iterable[int]) -> str:
    """The same images under the same labels have the same value, wherever they lie and whatever they are called."""
    return files.digest(sorted((sha256, int(label)) for sha256, label in zip(hashes, labels, strict=True)))


def pixels_sha256(pixels: NDArray[np.uint8]) -> str:
    """Hex digest of decoded pixels and their shape."""
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def _look(reader: Reader, root: str, path: str) -> _Image:
    try:
        decoded = decode_noting(reader.image(root, path), UPRIGHT)
    except DataError as error:
        return _Image(error=error.message)
    except OSError as error:
        return _Image(error=f"the file cannot be read: {error.strerror}")
    height, width = decoded.pixels.shape[:2]
    return _Image(pixels_sha256(decoded.pixels), width, height, decoded.conversions)


def _unreadable(paths: Sequence[str], images: list[_Image]) -> list[Finding]:
    """One finding for each image that cannot be used."""
    return [
        Finding(
            check="unreadable",
            severity="warning",
            message=f"'{path}' was left out: {image.error}",
            hint="mend or delete the file",
            items=(path,),
            evidence={"reason": image.error},
        )
        for path, image in zip(paths, images, strict=True)
        if image.error is not None
    ]


def _converted(paths: Sequence[str], images: list[_Image]) -> list[Finding]:
    """One finding for each kind of conversion that took place."""
    paths_of: dict[Conversion, list[str]] = defaultdict(list)
    for path, image in zip(paths, images, strict=True):
        for conversion in image.conversions:
            paths_of[conversion].append(path)
    return [
        Finding(
            check="converted",
            severity="info",
            message=f"{text} {count_of(len(paths_of[kind]), 'image')}: {name_a_few(paths_of[kind])}",
            items=tuple(paths_of[kind][:ITEMS_NAMED]),
            evidence={"kind": kind, "images": len(paths_of[kind])},
        )
        for kind, text in CONVERTED.items()
        if kind in paths_of
    ]


def _check_classes(listing: Listing, usable: list[int], images: list[_Image], root: str) -> None:
    """Refuse a class that has no usable image."""
    counts = np.bincount([listing.labels[row] for row in usable], minlength=len(listing.classes))
    empty = [name for name, count in zip(listing.classes, counts, strict=True) if count == 0]
    if empty:
        first_error = next(
            (
                f" ({listing.paths[row]}: {image.error})"
                for row, image in enumerate(images)
                if image.error is not None and listing.classes[listing.labels[row]] == empty[0]
            ),
            "",
        )
        raise DataError(
            f"no usable image is left in class {name_a_few(map(repr, empty))} of '{root}'{first_error}",
            hint="add images to it, or take the class away",
        )
