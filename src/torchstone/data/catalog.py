"""Reading a source: every image is decoded once, and only those that can be used enter the catalog."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from torchstone.core import registry, tables
from torchstone.core.contracts import Box, Listing, Reader
from torchstone.core.errors import DataError, from_os_error, nearest
from torchstone.core.numbers import whole
from torchstone.core.registry import readers
from torchstone.core.values import CATALOG_VERSION, Catalog, Finding
from torchstone.data import columns, similar
from torchstone.data import findings as reported
from torchstone.data.columns import Columns, Look
from torchstone.data.findings import count_of, name_a_few
from torchstone.data.parallel import in_order
from torchstone.data.sources import find_reader, source_digest

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "PARTS",
    "find_reader",
    "fingerprint",
    "glimpse",
    "made_of",
    "numbers_among",
    "pixels_sha256",
    "read",
    "relabelled",
    "settled",
    "source_digest",
    "write",
]

SIMILAR = "similar.parquet"
PARTS = "parts"
"""The name under which the finding is stored that a source's val is taken as its test."""


def made_of(source: str) -> dict[str, Any]:
    """What a catalog of ``source`` depends on: as long as it is the same, reading again would find the same. It is
    JSON-able."""
    exacting = not registry.missing_packages(("simplejpeg",))  # it notices damage that Pillow passes over
    return {"listing": source_digest(source), "catalog": CATALOG_VERSION, "simplejpeg": exacting}


def read(source: str, out_dir: Path, *, empty_classes: bool = False) -> Catalog:
    """Decode every image of ``source`` once and write what was found into ``out_dir``.

    ``source`` is a path or a reserved word such as ``digits``. Images that cannot be used are left out, and each has a
    finding (``unreadable``, or ``boxes`` where the fault is the box's). Raises a DataError when nothing here can be
    learned from: no reader takes the source, or a class has no usable image (with ``empty_classes``, only when none
    has: an audit reports the others). See ``write`` for the files.
    """
    root, name = find_reader(source)
    reader = readers.ready(name, "polars")
    listing = reader.listing(root)
    faults = {row: fault for row, box in enumerate(listing.boxes) if (fault := fault_of(box)) is not None}
    rows = [row for row in range(len(listing.paths)) if row not in faults]
    paths = [listing.paths[row] for row in rows] if faults else listing.paths
    looks = in_order(lambda path: _look(reader, root, path), paths, "reading images")
    findings = [_fault_found(listing, row, fault) for row, fault in faults.items()]
    seen = zip(rows, looks, strict=True)
    return write(listing, seen, out_dir, root=root, reader=name, findings=findings, empty_classes=empty_classes)


def glimpse(source: str, count: int = 50) -> float:
    """Pixels of the median image's shorter side, by so many images from all over ``source``. Raises the DataErrors of
    ``read`` for what cannot be read at all."""
    root, name = find_reader(source)
    reader = readers.ready(name)
    paths = reader.listing(root).paths
    sides = []
    for row in np.linspace(0, len(paths) - 1, min(count, len(paths))).astype(int):
        with contextlib.suppress(DataError, OSError), Image.open(BytesIO(reader.image(root, paths[int(row)]))) as image:
            sides.append(min(image.size))
    if not sides:
        raise DataError(f"no image of '{source}' can be read", hint=f"torchstone audit {source} says why")
    return float(np.median(sides))


def write(
    listing: Listing,
    looks: Iterable[tuple[int, Look | str]],
    out_dir: Path,
    *,
    root: str,
    reader: str,
    findings: Iterable[Finding] = (),
    empty_classes: bool = False,
) -> Catalog:
    """Gather the images of a listing into a catalog.

    ``looks`` has a row of the listing and what was seen there, or why it cannot be used; ``findings`` are of those rows
    that it leaves out. Into ``out_dir`` go ``catalog.parquet`` (core.values.Catalog), ``similar.parquet`` (``item_a``,
    ``item_b``, ``score``: images whose pixels differ and that show the same picture), ``findings.json`` and
    ``catalog.json``. Nothing is written when a DataError tells that a class has no usable image (with
    ``empty_classes``: that none has).

    One part alone divides nothing, and is none; a source's only held-out part, be it called val or test, is its test.
    """
    listing = settled(listing)
    gathered = Columns(len(listing.paths), _scratch(len(listing.paths), out_dir))
    errors: dict[int, str] = {}
    for row, seen in looks:
        if isinstance(seen, str):
            errors[row] = seen
        else:
            gathered.add(row, seen)
    if not (empty_classes and gathered.used):
        _check_classes(listing, gathered.rows, errors, root)

    found = similar.find(gathered.thumbnails, gathered.digests, gathered.short_sides)
    table = gathered.table(listing, found.picture)
    header = {"version": CATALOG_VERSION, "root": root, "reader": reader, "classes": list(listing.classes),
              columns.FURTHER: [columns.further_name(name) for name in listing.further]}  # fmt: skip
    table_path = out_dir / "catalog.parquet"
    tables.write(table_path, table, header)
    tables.write(
        out_dir / SIMILAR,
        tables.frame(
            {
                "item_a": table["item"].gather(found.pairs[:, 0]),
                "item_b": table["item"].gather(found.pairs[:, 1]),
                "score": found.scores,
            },
        ),
        header,
    )
    reported.store(out_dir, [*listing.findings, *findings, *_unreadable(listing, errors), *_crowd(table, found)])
    catalog = Catalog(
        root=root,
        reader=reader,
        classes=listing.classes,
        images=gathered.used,
        fingerprint=fingerprint(columns.hex_of(gathered.digests), table["label"]),
        table=table_path,
    )
    catalog.save(out_dir / "catalog.json")  # last: where it is, the rest is there, too
    return catalog


def numbers_among(classes: Sequence[str], known: Sequence[str], source: str) -> list[int]:
    """The number, in a model's ``known`` classes, of each class of ``source``: that of the same name, or where all of
    them are called by numbers, that number. A DataError names the first that the model does not know."""
    numbers = {name: number for number, name in enumerate(known)}
    unknown = next((name for name in classes if name not in numbers), None)
    if unknown is None:
        return [numbers[name] for name in classes]
    counted = [number for name in classes if (number := whole(name)) is not None and number < len(known)]
    if len(counted) == len(classes):
        return counted
    raise DataError(
        f"'{source}' has the class '{unknown}', which the model does not know", hint=nearest(unknown, known)
    )


def relabelled(directory: Path, classes: tuple[str, ...], numbers: Sequence[int]) -> Catalog:
    """The catalog in ``directory`` under the classes of a model that knows more of them: the class i of the catalog is
    ``classes[numbers[i]]``. Whatever was split by its own classes stays as it was."""
    path = directory / "catalog.json"
    before = Catalog.load(path)
    table, header = tables.read(directory / "catalog.parquet")
    labels = np.asarray(numbers, np.int32)[table["label"].to_numpy()]
    columns = {name: labels if name == "label" else table[name] for name in table.columns}
    table = tables.frame(columns)
    tables.write(directory / "catalog.parquet", table, {**header, "classes": list(classes)})
    prints = fingerprint(np.array(table["sha256"].to_list(), "S"), table["label"])
    catalog = before.model_copy(update={"classes": classes, "fingerprint": prints})
    catalog.save(path)
    return catalog


def fingerprint(hashes: Iterable[str], labels: Iterable[int]) -> str:
    """The same images under the same labels have the same value, wherever they lie and whatever they are called.

    It is ``files.digest`` of the sorted pairs, whose JSON would be large to hold.
    """
    digits = np.array(hashes if isinstance(hashes, np.ndarray) else list(hashes), "S")
    numbers = np.fromiter(labels, np.int64, len(digits))
    order = np.lexsort((numbers, digits))
    digest = hashlib.sha256(b"[")
    for start in range(0, len(order), 10_000):
        rows = order[start : start + 10_000]
        pairs = zip(digits[rows].tolist(), numbers[rows].tolist(), strict=True)
        text = ",".join(f'["{sha256.decode()}",{label}]' for sha256, label in pairs)
        digest.update((text if start == 0 else "," + text).encode())
    digest.update(b"]")
    return digest.hexdigest()


def pixels_sha256(pixels: NDArray[np.uint8]) -> str:
    """Hex digest of decoded pixels and their shape."""
    return columns.pixels_digest(pixels).hex()


def fault_of(box: Box) -> str | None:
    """Why nothing can be cut out by this box, or None."""
    if not (box.x1 > box.x0 and box.y1 > box.y0):  # also where a coordinate is no number
        return "has no area"
    if box.x1 <= 0 or box.y1 <= 0 or (0 < box.width <= box.x0) or (0 < box.height <= box.y0):
        return "lies outside of the picture"
    return None


def _look(reader: Reader, root: str, path: str) -> Look | str:
    try:
        return columns.look(reader.image(root, path))
    except DataError as error:
        return error.message
    except OSError as error:
        return f"the file cannot be read: {error.strerror}"


def settled(listing: Listing) -> Listing:
    """The listing with the parts that its images belong to in a catalog, and a finding where val became test."""
    known = set(listing.parts) - {None}
    if len(known) < 2:
        return replace(listing, parts=[None] * len(listing.parts))
    if "val" not in known or "test" in known:
        return listing
    images = sum(part == "val" for part in listing.parts)
    finding = Finding(
        check=PARTS,
        severity="info",
        message=f"the source has a val part and no test: {count_of(images, 'image')} of its val are the test part "
        "here, which nothing is chosen by, and val is cut from train",
        hint="for a val of your own, keep other images in a part called test: a folder test/ beside train/ and val/, "
        "or that word in the column split",
        evidence={"images": images},
    )
    parts = ["test" if part == "val" else part for part in listing.parts]
    return replace(listing, parts=parts, findings=(*listing.findings, finding))


def _scratch(images: int, out_dir: Path) -> NDArray[np.uint8]:
    """uint8[images, SIDE, SIDE] on the disk of ``out_dir``, in a file without a name: it goes when the array does."""
    shape = (max(1, images), similar.SIDE, similar.SIDE)
    nearest = next(place for place in (out_dir.absolute(), *out_dir.absolute().parents) if place.is_dir())
    try:
        with tempfile.TemporaryFile(dir=nearest) as file:
            if hasattr(os, "posix_fallocate"):  # writing to a mapped file on a full disk would end the process
                os.posix_fallocate(file.fileno(), 0, int(np.prod(shape)))
            return np.asarray(np.memmap(file, np.uint8, "w+", shape=shape))
    except OSError as error:
        raise (from_os_error(error) or error) from None


def _unreadable(listing: Listing, errors: dict[int, str]) -> Iterator[Finding]:
    """One finding for each image that cannot be used."""
    for row, error in errors.items():
        path = listing.paths[row]
        yield Finding(
            check="unreadable",
            severity="warning",
            message=f"'{path}' was left out: {error}",
            hint="mend or delete the file",
            items=(path,),
            evidence={"reason": error},
        )


def _crowd(table: Any, found: similar.Similar) -> Iterator[Finding]:
    """Images that may be copies of each other, and are kept together by nobody."""
    if not len(found.crowded):
        return
    items = tuple(table["item"].gather(found.crowded).to_list())
    yield Finding(
        check="crowds",
        severity="warning",
        message=f"{count_of(len(items), 'image')} looking like {similar.CROWD} or more others, too many to tell copies "
        f"from pictures of a kind: {name_a_few(items)}",
        hint="if they are frames of a video or augmented copies, list the images in a table with a column 'group': "
        "nothing else keeps them out of two parts",
        items=items,
        decision="review",
        evidence={"images": len(items), "neighbours": similar.CROWD},
    )


def _fault_found(listing: Listing, row: int, fault: str) -> Finding:
    path, box = listing.paths[row], listing.boxes[row]
    return Finding(
        check="boxes",
        severity="warning",
        message=f"'{path}' was left out: its box in {box.picture}, {box.x0:g} to {box.x1:g} across and {box.y0:g} to "
        f"{box.y1:g} down, {fault}",
        hint="mend or delete the box",
        items=(path,),
        evidence={"reason": fault, "picture": box.picture},
    )


def _check_classes(listing: Listing, usable: NDArray[np.int32], errors: dict[int, str], root: str) -> None:
    """Refuse a class that has no usable image."""
    counts = np.bincount(np.asarray(listing.labels, np.int64)[usable], minlength=len(listing.classes))
    empty = np.flatnonzero(counts == 0).tolist()
    if empty:
        first_error = next(
            (f" ({listing.paths[row]}: {error})" for row, error in errors.items() if listing.labels[row] == empty[0]),
            "",
        )
        raise DataError(
            f"no usable image is left in class {name_a_few(repr(listing.classes[label]) for label in empty)} of "
            f"'{root}'{first_error}",
            hint="add images to it, or take the class away",
        )
