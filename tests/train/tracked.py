"""A training of seconds that can be followed, and images for it."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from torchstone.data.preprocess import default_preprocess
from torchstone.models import zoo
from torchstone.models.deployable import Deployable
from torchstone.train import loop
from torchstone.train.observe import Observer, Step
from torchstone.train.recipe import Recipe
from torchstone.train.state import Progress

CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
RECIPE = Recipe(epochs=2, batch=32, precision="f32", workers=0, checkpoint_seconds=0.0)
IMAGES, STEPS = 160, 5
"""Images, and batches an epoch."""


class Digits:
    """Some of scikit-learn's digits at 32 pixels (contracts.ImageSet)."""

    def __init__(self, start: int, count: int) -> None:
        pixels, labels = load_digits(return_X_y=True)
        rows = slice(start, start + count)
        small = (pixels[rows].reshape(-1, 8, 8, 1) * 15.9).astype(np.uint8)
        self.pixels = small.repeat(4, axis=1).repeat(4, axis=2).repeat(3, axis=3)
        self.labels: NDArray[np.int64] = labels[rows].astype(np.int64)
        self.items: Sequence[str] = [f"digit-{row}" for row in range(start, start + count)]

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, rows: Any) -> NDArray[np.uint8]:
        return self.pixels[rows]

    def stored(self, rows: Any) -> NDArray[np.uint8]:
        return self.pixels[rows]

    def encoded(self, row: int) -> bytes:
        raise NotImplementedError


class Kill(Observer):
    """Stops the training after a step: as Ctrl-C does, or hard, which nothing survives."""

    def __init__(self, after: int, *, hard: bool = False) -> None:
        self.after, self.hard = after, hard

    def step(self, step: Step) -> None:
        if step.number == self.after and self.hard:
            os.kill(os.getpid(), signal.SIGKILL)
        if step.number == self.after:
            raise KeyboardInterrupt


def fitted(directory: Path, *observers: Observer, recipe: Recipe = RECIPE) -> tuple[Progress, dict[str, torch.Tensor]]:
    """What became of the training, and its weights."""
    torch.manual_seed(5)
    model = Deployable(zoo.build("lenet5", classes=10), default_preprocess(32))
    sets = Digits(0, IMAGES), Digits(IMAGES, 100)
    progress = loop.fit(model, *sets, recipe, 3, directory, classes=CLASSES, observers=observers)
    return progress, {name: value.clone() for name, value in model.network.state_dict().items()}
