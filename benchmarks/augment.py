"""What a policy costs: milliseconds an image on one core, at the sizes of small images and of photos; and what the
``standard`` policy would cost as torchvision's transforms one after the other."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_sample_images

from conditions import conditions
from torchstone.data.augment import POLICIES, Augmenter

SIZES = ((32, 32, 128), (256, 224, 16))
"""Stored side, crop, images a batch."""


def photos(side: int, count: int) -> NDArray[np.uint8]:
    """uint8[count, side, side, 3]: windows of scikit-learn's two photos."""
    draws = np.random.default_rng(0)
    windows = []
    for number in range(count):
        photo = load_sample_images().images[number % 2]
        top, left = draws.integers(photo.shape[0] - side), draws.integers(photo.shape[1] - side)
        windows.append(photo[top : top + side, left : left + side])
    return np.stack(windows)


def by_torchvision(crop: int, side: int) -> Callable[[NDArray[np.uint8]], list[Any]]:
    """``standard`` by torchvision: flip, affine, crop, jitter."""
    from torchvision.transforms import v2

    transform = v2.Compose(
        [
            v2.RandomHorizontalFlip(),
            v2.RandomAffine((-15, 15), scale=(0.8, 1.2), interpolation=v2.InterpolationMode.BILINEAR),
            v2.RandomCrop(crop, padding=None if side > crop else crop // 8, padding_mode="reflect"),
            v2.ColorJitter(brightness=0.2, saturation=0.2, hue=20 / 360),
        ]
    )
    return lambda images: [transform(torch.from_numpy(image).permute(2, 0, 1)) for image in images]


def measured(side: int, crop: int, count: int, rounds: int) -> dict[str, float]:
    """Median milliseconds an image of each policy, in interleaved rounds after one to warm up."""
    images, rows = photos(side, count), np.arange(count)
    theirs = by_torchvision(crop, side)
    ways: dict[str, Callable[[int], Any]] = {
        name: lambda epoch, name=name: Augmenter(name, crop, 0, epoch)(images, rows) for name in POLICIES
    }
    ways["standard by torchvision"] = lambda _: theirs(images)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for epoch in range(rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way(epoch)
            seconds[name].append(time.perf_counter() - start)
    return {name: 1000 * statistics.median(found[1:]) / count for name, found in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(conditions())
    for side, crop, count in SIZES:
        for name, milliseconds in measured(side, crop, count, options.rounds).items():
            print(f"{crop:4} px  {name:24} {milliseconds:7.3f} ms an image")


if __name__ == "__main__":
    main()
