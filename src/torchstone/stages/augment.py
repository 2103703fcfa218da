"""Show what an augmentation policy does to the images of a source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from torchstone.core import files, registry, seeding
from torchstone.core.contracts import Listing, Reader
from torchstone.core.errors import ConfigError, DataError, MissingPackageError
from torchstone.core.registry import readers
from torchstone.core.run import slug
from torchstone.core.values import Preprocess
from torchstone.data.augment import Augmenter, check_policy
from torchstone.data.decode import decode
from torchstone.data.preprocess import centre_crop, default_preprocess, stored, stored_side
from torchstone.data.sources import find_reader
from torchstone.report import contact_sheet
from torchstone.report.contact_sheet import Row, Sheet
from torchstone.stages.train import PHOTO_SIDE

SMALL, LARGE = 32, 224
"""Pixels a side that networks for small images and for photos usually see."""
FORMATS = (".png", ".html")
MOST = 1000
"""Pictures on one sheet."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the sheet shows."""

    policy: str = "standard"
    images: int = 6
    views: int = 7
    """Epochs shown of each image."""
    size: int | None = None
    """Pixels a side that the network sees; None: 224 for photos, 32 for small images."""
    seed: int = 0


def augment(source: str, options: Options, *, out: Path | None = None, runs: Path = Path("runs")) -> Path:
    """Write a contact sheet to ``out`` (.png or .html; by default ``runs/sheets/NAME-POLICY.png``): some images, as
    many of each class as of any other, as evaluation sees them and as each of the first epochs of a training with this
    seed would see them if they were its first images. Nothing else of the source is decoded.
    """
    check_policy(options.policy)
    if registry.missing_packages(("torch", "jinja2")):
        raise MissingPackageError("a contact sheet", ("torch", "jinja2"))
    if options.images < 1 or options.views < 1 or options.images * options.views > MOST:
        raise ConfigError(f"a sheet shows 1 to {MOST} pictures", hint="lower --images or --views")
    place = out or runs / "sheets" / f"{slug(Path(source).name or 'data')}-{slug(Path(options.policy).stem)}.png"
    if place.suffix not in FORMATS:
        raise ConfigError(f"a contact sheet is written as {' or '.join(FORMATS)}, not as '{place.name}'")
    root, name = find_reader(source)
    reader = readers.ready(name)
    listing = reader.listing(root)
    preprocess = _preprocess(reader, root, listing, options)
    chosen = list(_readable(reader, root, listing, preprocess, options))
    files.write_bytes(place, contact_sheet.render(_sheet(listing, chosen, preprocess.crop, options), place.suffix))
    return place


def _sheet(listing: Listing, chosen: list[tuple[int, NDArray[np.uint8]]], crop: int, options: Options) -> Sheet:
    images = np.stack([pixels for _, pixels in chosen])
    numbers = np.arange(len(images))
    views = [Augmenter(options.policy, crop, options.seed, epoch)(images, numbers) for epoch in range(options.views)]
    rows = [
        Row(
            path=listing.paths[row],
            label=listing.classes[listing.labels[row]],
            original=centre_crop(images[number], crop),
            views=[view[number] for view in views],
        )
        for number, (row, _) in enumerate(chosen)
    ]
    return Sheet(policy=options.policy, size=crop, seed=options.seed, rows=rows)


def _preprocess(reader: Reader, root: str, listing: Listing, options: Options) -> Preprocess:
    """By the size that was asked for, or the first image that can be read."""
    if options.size is not None:
        return default_preprocess(options.size)
    for path in listing.paths:
        try:
            height, width, _ = decode(reader.image(root, path), default_preprocess(1)).shape
        except (DataError, OSError):
            continue
        return default_preprocess(LARGE if min(height, width) > PHOTO_SIDE else SMALL)
    raise _nothing(root)


def _readable(
    reader: Reader, root: str, listing: Listing, preprocess: Preprocess, options: Options
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Row in the listing and stored pixels of the images to show, sorted by class; those that cannot be read make way
    for others."""
    labels = np.array(listing.labels, np.int64)
    wanted = seeding.sample_rows(labels, options.images, f"sheet {options.seed}")
    spare = seeding.generator(options.seed, "spare").permutation(np.setdiff1d(np.arange(len(labels)), wanted))
    order = np.concatenate([wanted[np.argsort(labels[wanted], kind="stable")], spare])
    found = 0
    for row in map(int, order):
        if found == options.images:
            return
        try:
            pixels = stored(reader.image(root, listing.paths[row]), preprocess, stored_side(preprocess))
        except (DataError, OSError):
            continue
        found += 1
        yield row, pixels
    if not found:
        raise _nothing(root)


def _nothing(root: str) -> DataError:
    return DataError(f"no image of '{root}' can be read", hint="torchstone audit says what is wrong with them")
