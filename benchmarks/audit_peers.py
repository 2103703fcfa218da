"""The audit beside cleanvision and imagededup: images a second and planted defects found, on the same images.

Each runs in a process and (the peers) an environment of its own, on all cores, its imports not counted, in alternated
order. torchstone always does everything at once: it reads, hashes and measures each image, searches for similar ones
and runs every check that needs no network. cleanvision does the checks that torchstone has as well, imagededup its
perceptual hash with its own threshold. A pair of copies counts as found when both stand in one set.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from conditions import conditions

REQUIREMENTS = {
    "cleanvision": ("cleanvision==0.3.7",),
    "imagededup": ("imagededup==0.3.3.post2",),
}
WORKERS = Path(__file__).parent / "peers"
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
PLANTED_OF_EACH = 30

Change = Callable[[Image.Image, np.random.Generator], Image.Image]


@dataclass(frozen=True)
class Plant:
    """A file that was added, and what is wrong with it."""

    kind: str
    item: str
    original: str
    copy: bool
    """It shows the same picture as its original; otherwise it is a defect on its own."""


def _blank(image: Image.Image, random: np.random.Generator) -> Image.Image:
    noise = random.normal(0, 1, (image.height, image.width, 3)) + random.integers(40, 216, 3)
    return Image.fromarray(noise.clip(0, 255).astype(np.uint8))


def _strip(image: Image.Image, random: np.random.Generator) -> Image.Image:
    high = max(4, image.width // 12)
    top = int(random.integers(0, image.height - high))
    return image.crop((0, top, image.width, top + high))


def _trimmed(image: Image.Image, random: np.random.Generator) -> Image.Image:
    left, top, right, bottom = random.uniform(0.01, 0.1, 4)
    width, height = image.size
    return image.crop((int(left * width), int(top * height), int((1 - right) * width), int((1 - bottom) * height)))


def _resized(image: Image.Image, random: np.random.Generator) -> Image.Image:
    factor = random.uniform(0.5, 2.0)
    return image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC)


DEFECTS: dict[str, Change] = {
    "dark": lambda image, random: ImageEnhance.Brightness(image).enhance(random.uniform(0.03, 0.12)),
    "bright": lambda image, random: Image.blend(
        image, Image.new("RGB", image.size, "white"), random.uniform(0.88, 0.96)
    ),
    "blurry": lambda image, random: image.filter(
        ImageFilter.GaussianBlur(random.uniform(0.02, 0.04) * min(image.size))
    ),
    "blank": _blank,
    "odd size": _strip,
}
COPIES: dict[str, Change] = {
    "same pixels": lambda image, _: image,
    "recompressed": lambda image, _: image,
    "resized": _resized,
    "trimmed": _trimmed,
    "brightness": lambda image, random: ImageEnhance.Brightness(image).enhance(
        random.choice((random.uniform(0.7, 0.9), random.uniform(1.1, 1.3)))
    ),
    "mirrored": lambda image, _: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}


def prepare(source: Path, target: Path, most: int) -> tuple[int, list[Plant]]:
    """Copy ``source``'s images (class folders, at any depth) and plant the defects among them; images and plants."""
    files = sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES)
    random = np.random.default_rng(0)
    files = [files[row] for row in np.sort(random.permutation(len(files))[:most])]
    for number, path in enumerate(files):
        place = target / path.parent.name / f"{number:06}{path.suffix.lower()}"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
    copied = sorted(path for path in target.rglob("*") if path.is_file())
    kinds = [(kind, change, kind in COPIES) for kind, change in {**DEFECTS, **COPIES}.items()]
    chosen = random.permutation(len(copied))[: PLANTED_OF_EACH * len(kinds)]
    plants = []
    for turn, row in enumerate(chosen):
        kind, change, copy = kinds[turn % len(kinds)]
        original = copied[row]
        with Image.open(original) as opened:
            changed = change(opened.convert("RGB"), random)
        place = original.parent / f"plant-{turn:05}{'.png' if kind == 'same pixels' else '.jpg'}"
        quality = int(random.integers(30, 91)) if kind == "recompressed" else 95
        changed.save(place, quality=quality)  # PNG knows no quality
        item, of = (path.relative_to(target).as_posix() for path in (place, original))
        plants.append(Plant(kind, item, of, copy))
    return len(copied) + len(plants), plants


def environment(name: str, place: Path) -> Path:
    """The Python of an environment with that peer, made on the first call."""
    python, stamp = place / name / "bin" / "python", place / name / "requirements.json"
    wanted = json.dumps(REQUIREMENTS[name])
    if not stamp.exists() or stamp.read_text() != wanted:
        venv.create(place / name, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *REQUIREMENTS[name]], check=True)
        stamp.write_text(wanted)
    return python


def run(name: str, python: Path, folder: Path) -> dict[str, Any]:
    """What the worker prints last; imagededup gives bare names where torchstone gives paths below the folder."""
    command = [str(python), str(WORKERS / f"with_{name}.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"error: {name} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def recall(answer: dict[str, Any], plants: list[Plant], kind: str) -> float | None:
    """Share of the plants of this kind that were found; None where the peer does not look for it."""
    mine = [plant for plant in plants if plant.kind == kind]
    if kind in DEFECTS:
        if kind not in answer["found"]:
            return None
        found = set(answer["found"][kind])
        return sum(plant.item in found for plant in mine) / len(mine)
    sets = [
        {Path(item).name for item in group} for which in ("duplicates", "near_duplicates") for group in answer[which]
    ]
    names = [{Path(plant.item).name, Path(plant.original).name} for plant in mine]
    return sum(any(pair <= group for group in sets) for pair in names) / len(mine)


def others(answer: dict[str, Any], plants: list[Plant], kind: str) -> int | None:
    """Images that were named for this defect and are none of its plants: of other kinds, or as they came."""
    if kind not in answer["found"]:
        return None
    return len(set(answer["found"][kind]) - {plant.item for plant in plants if plant.kind == kind})


def show(name: str, cells: list[str]) -> None:
    print(f"{name:16}" + "".join(f"{cell:>16}" for cell in cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="a folder of class folders")
    parser.add_argument("--envs", type=Path, default=Path(tempfile.gettempdir()) / "torchstone-peers")
    parser.add_argument("--peers", nargs="*", default=list(REQUIREMENTS), choices=list(REQUIREMENTS))
    parser.add_argument("--images", type=int, default=4_000, help="at most so many of them, drawn at random")
    parser.add_argument("--blocks", type=int, default=5, help="runs of each, in alternated order")
    options = parser.parse_args()
    pythons = {"torchstone": Path(sys.executable)}
    pythons |= {name: environment(name, options.envs) for name in options.peers}
    print(conditions())
    answers: dict[str, dict[str, Any]] = {}
    seconds: dict[str, list[float]] = {name: [] for name in pythons}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "images"
        images, plants = prepare(options.data, folder, options.images)
        for path in folder.rglob("*"):
            if path.is_file():
                path.read_bytes()  # nobody is the first to touch the disk
        for block in range(options.blocks):
            for name in list(pythons)[:: 1 if block % 2 == 0 else -1]:
                answers[name] = run(name, pythons[name], folder)
                seconds[name].append(answers[name]["seconds"])
    print(f"{images:,} images, {len(plants)} of them planted; {options.blocks} alternated blocks")
    show("", list(pythons))
    show("images/s", [f"{images / statistics.median(times):.0f}" for times in seconds.values()])
    ratios = {
        name: sorted(theirs / ours for ours, theirs in zip(seconds["torchstone"], times, strict=True))
        for name, times in seconds.items()
    }
    show("torchstone is", [f"{statistics.median(ratio):.2f} x" for ratio in ratios.values()])
    show("  lowest, highest", [f"{ratio[0]:.2f}, {ratio[-1]:.2f}" for ratio in ratios.values()])
    peers = [times for name, times in seconds.items() if name != "torchstone"]
    if len(peers) > 1:  # together they do most of what torchstone does
        both = sorted(sum(block) / ours for ours, *block in zip(seconds["torchstone"], *peers, strict=True))
        print(f"and of all peers one after the other {statistics.median(both):.2f} x ({both[0]:.2f} to {both[-1]:.2f})")
    print("planted, found (named besides)")
    for kind in (*DEFECTS, *COPIES):
        cells = []
        for answer in answers.values():
            share, besides = recall(answer, plants, kind), others(answer, plants, kind)
            cells.append("-" if share is None else f"{share:.2f}" + (f" ({besides})" if besides is not None else ""))
        show(kind, cells)


if __name__ == "__main__":
    main()
