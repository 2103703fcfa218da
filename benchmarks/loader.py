"""How fast photos become batches, against torchvision's ImageFolder and DataLoader with as many worker processes.

The same files, in the same order, in alternated blocks; a block is a pass over a plan of batches, the start of its
workers included. ``torchvision`` ends in uint8 like ours, ``torchvision, float`` is what tutorials write: ``ToTensor``
and ``Normalize``. With ``--run``, the accuracy that the fast decoder costs a trained model is judged as well, in a copy
of that run.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets import ImageFolder

from conditions import conditions
from torchstone.core import console, machine, tables
from torchstone.core.contracts import ImageSet
from torchstone.core.numbers import rounded_up
from torchstone.core.values import Budget, Catalog, Preprocess
from torchstone.data import cache, catalog, preprocess
from torchstone.data.loader import batches

BATCH = 32
THEIRS, FLOAT = "torchvision", "torchvision, float"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Pass = Callable[[list[np.ndarray]], Iterator[Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="?", type=Path, help="a folder of class folders; without one, nothing is timed")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--workers", type=int, default=machine.usable_cores())
    parser.add_argument("--rounds", type=int, default=8, help="blocks of each loader")
    parser.add_argument("--batches", type=int, default=60, help=f"of {BATCH} images in a block")
    parser.add_argument("--run", type=Path, help="a finished run on photos: judge the fast decoder on it")
    options = parser.parse_args()
    console.be_quiet()
    print(conditions())
    with tempfile.TemporaryDirectory(prefix="torchstone-") as scratch:
        if options.data:
            timed(options, Path(scratch))
        if options.run:
            judged(options.run, Path(scratch) / "runs")


def timed(options: argparse.Namespace, scratch: Path) -> None:
    found = catalog.read(str(options.data), scratch / "data")
    exact = preprocess.default_preprocess(options.size)
    loaders = ours(found, exact, scratch, options.workers)
    folder = photos(found, exact)
    print(f"{found.images} images of '{options.data}', {sides_of(found)}; {options.size} px, {options.workers} workers")
    print(same_pixels(folder[THEIRS], cache.open_images(found, None, None, exact, scratch / "cache")))
    for name, images in folder.items():
        loaders[name] = lambda plan, images=images: iter(
            DataLoader(images, batch_sampler=plan, num_workers=options.workers)  # pyright: ignore[reportArgumentType]
        )
    rates = alternate(loaders, folder[THEIRS].rows, options)
    report(rates)


def ours(found: Catalog, exact: Preprocess, scratch: Path, workers: int) -> dict[str, Pass]:
    """Our loaders by name. A cached array is read in this process unless the loader itself asks for more."""
    cache.set_limit(scratch / "streamed", 0)
    fast = preprocess.with_decoder(exact, "simplejpeg-torch")
    cached = cache.open_images(found, None, None, exact, scratch / "cache")
    streamed = cache.open_images(found, None, None, exact, scratch / "streamed")
    quick = cache.open_images(found, None, None, fast, scratch / "streamed")
    return {
        "cached": lambda plan: batches(cached, plan),
        "streamed": lambda plan: batches(streamed, plan, workers=workers),
        "streamed, fast decoder": lambda plan: batches(quick, plan, workers=workers),
    }


def photos(found: Catalog, exact: Preprocess) -> dict[str, Photos]:
    """torchvision's data sets of the images that can be read, in the catalog's order."""
    table, _ = tables.read(found.table)
    root = Path(found.root)
    paths = [str(root / item) for item in table["item"].to_list()]
    mode = transforms.InterpolationMode.BILINEAR
    frame = [transforms.Resize(exact.resize, mode), transforms.CenterCrop(exact.crop)]
    ends = {THEIRS: [transforms.PILToTensor()], FLOAT: [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]}
    return {name: Photos(root, paths, transforms.Compose([*frame, *end])) for name, end in ends.items()}


class Photos(Dataset[Any]):
    """An ImageFolder of these files: it opens, converts and transforms each as ImageFolder does."""

    def __init__(self, root: Path, paths: list[str], transform: Any) -> None:
        below = {str(Path(path).parents[1]) for path in paths}
        folders = [ImageFolder(place, transform=transform) for place in sorted(below)]
        place_of = {path: (folder, row) for folder in folders for row, (path, _) in enumerate(folder.samples)}
        self._places = {row: place_of[path] for row, path in enumerate(paths) if path in place_of}

    @property
    def rows(self) -> np.ndarray:
        """The catalog's rows that ImageFolder takes: it knows no GIF."""
        return np.array(list(self._places))

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, row: int) -> Any:
        folder, at = self._places[row]
        return folder[at]


def same_pixels(theirs: Photos, images: ImageSet) -> str:
    """How many images come out alike."""
    rows = theirs.rows.tolist()
    same = sum(
        np.array_equal(images.images(slice(row, row + 1))[0], theirs[row][0].permute(1, 2, 0).numpy()) for row in rows
    )
    return f"pixels: {same} of {len(theirs)} images are those of torchvision"


def sides_of(found: Catalog) -> str:
    table, _ = tables.read(found.table)
    return f"median {table['width'].median():.0f} × {table['height'].median():.0f}"


def alternate(loaders: dict[str, Pass], rows: np.ndarray, options: argparse.Namespace) -> dict[str, list[float]]:
    """Images a second of each loader, block by block, in an order that turns round every time."""
    plans = np.random.default_rng(0)
    rates: dict[str, list[float]] = {name: [] for name in loaders}
    names = list(loaders)
    for number in range(options.rounds + 1):
        plan = [plans.choice(rows, BATCH, replace=len(rows) < BATCH) for _ in range(options.batches)]
        for name in names if number % 2 else reversed(names):
            begin = time.perf_counter()
            seen = sum(len(batch[0]) for batch in loaders[name](plan))
            if number:  # the first round warms the files and the code
                rates[name].append(seen / (time.perf_counter() - begin))
    return rates


def report(rates: dict[str, list[float]]) -> None:
    for name, found in rates.items():
        print(f"{name:24} {statistics.median(found):8,.0f} images/s")
    for base in (THEIRS, FLOAT):
        for name in ("cached", "streamed", "streamed, fast decoder"):
            ratios = [one / other for one, other in zip(rates[name], rates[base], strict=True)]
            low, high = min(ratios), max(ratios)
            print(f"{name} / {base}: {statistics.median(ratios):.2f}× ({low:.2f} to {high:.2f})")


def judged(run: Path, scratch: Path) -> None:
    """The accuracy of the run's model behind the fast decoder, on the test images of the run."""
    from torchstone.core.run import Run
    from torchstone.stages.judge import judge

    shutil.copytree(run, scratch / run.name)
    copy = Run(scratch / run.name)
    baseline = copy.load_candidates()[0]
    place = str(baseline.artifact.directory)
    _, verdict = judge(place, ["decoder=simplejpeg-torch"], Budget(max_drop=1.0))
    result = verdict.rows[1].accuracy
    assert result is not None
    most = f"at most {rounded_up(result.drop_upper, 2):z.2f} at {100 * verdict.level:g} %"
    print(
        f"decoder=simplejpeg-torch on {result.images} test images of '{run.name}': {result.lost} lost, {result.gained} "
        f"gained, {result.drop:.2f} points, {most}: {verdict.rows[1].outcome}"
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
