"""How many planted copies of images the catalog recognises, and how many strangers it takes for copies.

Each copy differs from its original by one thing: compressed as JPEG (quality 30 to 90), up to --crop of each side cut
off (each by its own share), resized (x 0.5 to 2), mirrored, or brightened (x 0.7 to 1.3). What similarity search finds
among the originals alone is taken as true: the real copies of a picture count as right answers to its planted one.

With --families, as many copies of each of some originals are planted, each changed in several of these ways, as
augmentation before training does: how many copies are joined to their family, and how many are at least named as a
crowd (more than a few that are alike cannot be told from pictures of a kind).
"""

from __future__ import annotations

import argparse
import io
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from conditions import conditions
from torchstone.core.contracts import Reader
from torchstone.core.errors import DataError
from torchstone.core.registry import readers
from torchstone.data import similar
from torchstone.data.catalog import find_reader
from torchstone.data.columns import Look, look
from torchstone.data.parallel import in_order

KINDS = ("JPEG", "crop", "resize", "mirror", "brightness")


def altered(content: bytes, kind: str, random: np.random.Generator, crop: float) -> bytes:
    """The encoded image with one thing changed, as PNG unless JPEG is that thing."""
    image = Image.open(io.BytesIO(content)).convert("RGB")
    options: dict[str, Any] = {"format": "PNG"}
    if kind == "JPEG":
        options = {"format": "JPEG", "quality": int(random.integers(30, 91))}
    elif kind == "crop":
        shares = random.uniform(0, crop, 4)
        left, right = np.round(shares[:2] * image.width)
        top, bottom = np.round(shares[2:] * image.height)
        left = max(left, 1)  # so that no copy is its original
        image = image.crop((int(left), int(top), int(image.width - right), int(image.height - bottom)))
    elif kind == "resize":
        factor = np.exp(random.uniform(np.log(0.5), np.log(2)))
        size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
        image = image.resize(size, Image.Resampling.BILINEAR)
    elif kind == "mirror":
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    else:
        factor = random.uniform(0.7, 1.3)
        image = image.point([min(255, round(value * factor)) for value in range(256)] * 3)
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


class Seen:
    """What similarity search is given of some images."""

    def __init__(self, looks: Iterable[Look]) -> None:
        taken = [(one.thumbnail, np.frombuffer(one.sha256, np.uint8), min(one.width, one.height)) for one in looks]
        self.thumbnails, self.digests, sides = (np.stack(column) for column in zip(*taken, strict=True))
        self.sides = sides.astype(np.int32)

    def search(self, more: Seen | None = None) -> similar.Similar:
        if more is None:
            return similar.find(self.thumbnails, self.digests, self.sides)
        return similar.find(
            np.concatenate([self.thumbnails, more.thumbnails]),
            np.concatenate([self.digests, more.digests]),
            np.concatenate([self.sides, more.sides]),
        )


def originals(reader: Reader, root: str) -> tuple[list[str], list[str | None], Seen]:
    """Paths, parts and looks of the images that can be used."""
    listing = reader.listing(root)

    def seen(path: str) -> Look | None:
        try:
            return look(reader.image(root, path))
        except DataError:
            return None

    looks = list(in_order(seen, listing.paths, "reading images"))
    rows = [row for row, one in enumerate(looks) if one is not None]
    paths, parts = [listing.paths[row] for row in rows], [listing.parts[row] for row in rows]
    return paths, parts, Seen(one for one in looks if one is not None)


def report_real(alone: similar.Similar, parts: list[str | None], seconds: float) -> None:
    """What there is without any planting."""
    counts = np.bincount(alone.picture)
    print(
        f"originals alone: {len(alone.picture):,} images, {len(alone.pairs):,} pairs of the same picture with other "
        f"pixels, largest cluster {counts.max()}, {seconds:.0f} s"
    )
    parts_of: dict[int, set[str]] = defaultdict(set)
    for picture, part in zip(alone.picture.tolist(), parts, strict=True):
        if part is not None:
            parts_of[picture].add(part)
    shared = {picture for picture, own in parts_of.items() if len(own) > 1}
    lost = Counter(part for picture, part in zip(alone.picture.tolist(), parts, strict=True) if picture in shared)
    print(f"  pictures in more than one part: {len(shared):,}; images of them by part: {dict(lost)}")


def report_planted(
    alone: similar.Similar, found: similar.Similar, sources: NDArray[np.intp], kinds: list[str], seconds: float
) -> None:
    """Recall by kind, and precision over the pairs that a planted copy is in."""
    count = len(alone.picture)
    hit = found.picture[count:] == found.picture[sources]
    recall = {kind: float(np.mean(hit[[own == kind for own in kinds]])) for kind in KINDS}
    right = wrong = 0
    meant = np.concatenate([np.arange(count), sources])  # the original that each row shows
    for one, other in found.pairs[(found.pairs >= count).any(axis=1)]:
        if alone.picture[meant[one]] == alone.picture[meant[other]]:
            right += 1
        else:
            wrong += 1
    named = ", ".join(f"{kind} {share:.3f}" for kind, share in recall.items())
    print(
        f"  recall {hit.mean():.4f} ({named}); precision {right / max(1, right + wrong):.4f} ({wrong} of "
        f"{right + wrong} pairs wrong); search {seconds:.0f} s"
    )


def report_families(seen: Seen, contents: list[bytes], size: int, count: int, seed: int, crop: float) -> None:
    """Families of ``size`` of each of ``contents``, the original included."""
    random = np.random.default_rng(seed)
    copies = []
    for content in contents:
        for _ in range(size - 1):
            copy = content
            for kind in random.choice(KINDS, 2, replace=False):
                copy = altered(copy, kind, random, crop / 2)
            copies.append(look(copy))
    found = seen.search(Seen(copies))
    joined = np.bincount(found.pairs.ravel(), minlength=len(found.picture)) > 0
    named = np.isin(np.arange(len(found.picture)), found.crowded)
    planted = np.arange(count, count + len(copies))
    print(
        f"seed {seed}: {len(contents):,} families of {size}: {joined[planted].mean():.3f} of the copies joined to one, "
        f"{(named & ~joined)[planted].mean():.3f} named as a crowd, {(~named & ~joined)[planted].mean():.3f} neither; "
        f"{named[:count].sum():,} originals named"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="a source with hundreds of images, e.g. CIFAR-10 as a folder")
    parser.add_argument("--copies", type=int, default=2000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--crop", type=float, default=0.1)
    parser.add_argument("--families", type=int, nargs="*", default=[], help="sizes of families, e.g. 5 12")
    options = parser.parse_args()
    print(conditions())
    root, name = find_reader(options.data)
    reader = readers.ready(name)
    begin = time.perf_counter()
    paths, parts, seen = originals(reader, root)
    print(f"{options.data}: decoded and measured in {time.perf_counter() - begin:.0f} s")
    begin = time.perf_counter()
    alone = seen.search()
    report_real(alone, parts, time.perf_counter() - begin)
    for seed in options.seeds:
        random = np.random.default_rng(seed)
        sources = random.choice(len(paths), min(options.copies, len(paths)), replace=False)
        kinds = [KINDS[number % len(KINDS)] for number in range(len(sources))]
        contents = (
            altered(reader.image(root, paths[source]), kind, random, options.crop)
            for source, kind in zip(sources, kinds, strict=True)
        )
        planted = Seen(look(content) for content in contents)
        begin = time.perf_counter()
        found = seen.search(planted)
        print(f"seed {seed}: {len(sources):,} copies planted, crops of up to {options.crop:.0%} a side")
        report_planted(alone, found, sources, kinds, time.perf_counter() - begin)
        for size in options.families:
            some = [reader.image(root, paths[source]) for source in sources[: max(1, len(sources) // size)]]
            report_families(seen, some, size, len(paths), seed, options.crop)


if __name__ == "__main__":
    main()
