"""A catalog of as many images as ImageNet, 1.3 million by default: time and memory of everything but the decoding.

Thumbnails are drawn with the spectrum of natural pictures; of one in a hundred, a brighter copy that is shifted by a
pixel stands elsewhere. Each phase runs in a process of its own, so that its peak is its own: ``own`` memory is what
the process allocated, ``resident`` adds the pages of the mapped thumbnails that happened to be in memory.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from conditions import conditions
from torchstone.audit import audit
from torchstone.core import tables
from torchstone.core.contracts import Listing
from torchstone.core.values import Catalog
from torchstone.data import findings as reported
from torchstone.data import measure, similar
from torchstone.data.catalog import write
from torchstone.data.columns import Look
from torchstone.data.split import split

CLASSES = 1000
PLANTED_EVERY = 100
AT_ONCE = 8192


def draw(place: Path, images: int) -> None:
    """``thumbnails.npy``, uint8[images, SIDE, SIDE]; ``sources.npy``: for each row, the row that it copies, or -1."""
    random = np.random.default_rng(0)
    side = similar.SIDE
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]) * side
    amplitude = np.where(frequency > 0, 1 / np.maximum(frequency, 1), 0).astype(np.float32)
    thumbnails = np.lib.format.open_memmap(place / "thumbnails.npy", "w+", np.uint8, (images, side, side))
    for start in range(0, images, AT_ONCE):
        size = min(AT_ONCE, images - start)
        noise = random.standard_normal((size, side, side // 2 + 1, 2), np.float32).view(np.complex64)[..., 0]
        fields = np.fft.irfft2(noise * amplitude, (side, side)).astype(np.float32)
        fields *= 45 / fields.std(axis=(1, 2), keepdims=True)
        thumbnails[start : start + size] = np.clip(fields + 110, 0, 255)
    sources = np.full(images, -1)
    copies = random.permutation(images)[: images // PLANTED_EVERY * 2].reshape(2, -1)
    sources[copies[0]] = copies[1]
    for copy, source in copies.T:
        shifted = np.roll(thumbnails[source], 1, axis=1)
        shifted[:, 0] = shifted[:, 1]
        thumbnails[copy] = np.clip(shifted * 1.2, 0, 255)
    np.save(place / "sources.npy", sources)


def looks(thumbnails: NDArray[np.uint8]) -> Iterator[tuple[int, Look | str]]:
    """What decoding would have told."""
    random = np.random.default_rng(1)
    for start in range(0, len(thumbnails), AT_ONCE):
        some = thumbnails[start : start + AT_ONCE]
        digests = random.bytes(32 * len(some))
        measures = random.random((len(some), len(measure.COLUMNS)), np.float32)
        for at in range(len(some)):
            sha256 = digests[32 * at : 32 * at + 32]
            yield start + at, Look(sha256, 500, 375, "JPEG", 110_000, "", measures[at], some[at])


def gather(place: Path) -> str:
    """The catalog, with its search for similar pictures."""
    thumbnails = np.load(place / "thumbnails.npy", mmap_mode="r")
    images = len(thumbnails)
    listing = Listing(
        classes=tuple(f"n{number:08}" for number in range(CLASSES)),
        paths=[f"train/n{row % CLASSES:08}/n{row % CLASSES:08}_{row}.JPEG" for row in range(images)],
        labels=[row % CLASSES for row in range(images)],
        parts=[None] * images,
    )
    write(listing, looks(thumbnails), place / "data", root=str(place), reader="folder")
    return f"{(place / 'data' / 'catalog.parquet').stat().st_size / 1e6:.0f} MB of Parquet"


def search(place: Path) -> str:
    """The search alone, and whether it finds what was planted."""
    thumbnails = np.load(place / "thumbnails.npy", mmap_mode="r")
    sources = np.load(place / "sources.npy")
    digests = np.random.default_rng(2).integers(0, 256, (len(thumbnails), 32), np.uint8)
    found = similar.find(thumbnails, digests)
    planted = np.flatnonzero(sources >= 0)
    meant = {(min(pair), max(pair)) for pair in zip(planted.tolist(), sources[planted].tolist(), strict=True)}
    listed = set(map(tuple, found.pairs.tolist()))
    return (
        f"{len(meant & listed) / len(meant):.3f} of {len(meant):,} planted pairs found, {len(listed - meant):,} others"
    )


def crowd(place: Path) -> str:
    """The search among 20,000 frames of one scene, which differ by noise alone: memory must not grow with crowds."""
    thumbnails = np.load(place / "thumbnails.npy", mmap_mode="r")
    noise = np.random.default_rng(3).integers(-4, 5, (min(20_000, len(thumbnails)), *thumbnails.shape[1:]), np.int16)
    frames = np.clip(thumbnails[0] + noise, 0, 255).astype(np.uint8)
    digests = np.random.default_rng(2).integers(0, 256, (len(frames), 32), np.uint8)
    found = similar.find(frames, digests)
    return f"{len(frames):,} frames, {len(found.pairs):,} pairs, {len(found.crowded):,} named as a crowd"


def cut(place: Path) -> str:
    """The split."""
    made = split(Catalog.load(place / "data" / "catalog.json"), place / "data", seed=0)
    return ", ".join(f"{part} {size:,}" for part, size in made.sizes.items())


def check(place: Path) -> str:
    """The audit's checks of the table."""
    found = audit(Catalog.load(place / "data" / "catalog.json"), reported.load(place / "data"))
    return f"{len(found)} findings"


def load(place: Path) -> str:
    """Reading the table back."""
    table, _ = tables.read(place / "data" / "catalog.parquet")
    return f"{len(table):,} rows, {len(table.columns)} columns"


PHASES = (draw, gather, search, crowd, load, cut, check)


def in_process(phase: Callable[..., str | None], place: Path, *arguments: int) -> None:
    """Run one phase in a fresh process and print its cost."""
    process = multiprocessing.get_context("spawn").Process(target=_measured, args=(phase, place, *arguments))
    process.start()
    process.join()
    if process.exitcode:
        print(f"{phase.__name__:8} failed")


def _measured(phase: Callable[..., str | None], place: Path, *arguments: int) -> None:
    peak, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], _own_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    begin = time.perf_counter()
    try:
        told = phase(place, *arguments) or ""
    finally:
        seconds = time.perf_counter() - begin
        done.set()
        watcher.join()
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    memory = f"own {peak[0] / 1e9:5.2f} GB, resident {resident / 1e9:5.2f} GB"
    print(f"{phase.__name__:8} {seconds:7.1f} s, {memory}  {told}", flush=True)


def _own_memory() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1_300_000)
    parser.add_argument("--scratch", type=Path, help="a directory on a disk with 5 GB free")
    names = [phase.__name__ for phase in PHASES]
    parser.add_argument("--only", choices=names[1:], nargs="+", default=names[1:])
    options = parser.parse_args()
    print(conditions())
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        in_process(draw, Path(scratch), options.images)
        for phase in PHASES[1:]:
            if phase.__name__ in options.only:
                in_process(phase, Path(scratch))


if __name__ == "__main__":
    main()
