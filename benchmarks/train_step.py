"""What the training step costs beside a bare PyTorch loop of the same network: images a second of both, in turns.

The bare loop has nothing but forward, cross-entropy, backward and the same SGD, in the same arithmetic and memory
layout, and reads its loss, as everybody's does. Ours is ``train.step`` as the training calls it, with the schedule, the
norm of the gradient and its clipping, the look for what is no number, and the sums of the history; with ``--observed``,
under the measurements of the coach, too. Both take batches that lie in memory. Augmentation and loading have a
benchmark of their own (``loader.py``).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from conditions import conditions
from torchstone.core import machine
from torchstone.data.loader import Batch
from torchstone.data.preprocess import default_preprocess
from torchstone.models import zoo
from torchstone.models.deployable import Deployable
from torchstone.train.device import arithmetic, autocast, device
from torchstone.train.job import Job
from torchstone.train.observe import Observer, Step
from torchstone.train.recipe import Recipe
from torchstone.train.state import State
from torchstone.train.step import take

NETWORKS = ("resnet20:32:128", "resnet9:32:128", "torchvision:mobilenet_v3_small:128:32", "torchvision:resnet18:128:32")
DECAY = 5e-4
CLASSES, SETS = 10, 4
"""Batches that are taken in turn."""


class Noise:
    """Images of noise in memory (contracts.ImageSet)."""

    def __init__(self, count: int, side: int) -> None:
        draws = np.random.default_rng(0)
        self.labels, self.items = draws.integers(0, CLASSES, count), [str(number) for number in range(count)]
        self.pixels = draws.integers(0, 256, (count, side, side, 3), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, rows: Any) -> Any:
        return self.pixels[rows]

    def stored(self, rows: Any) -> Any:
        return self.pixels[rows]

    def encoded(self, row: int) -> bytes:
        raise NotImplementedError


class Bare:
    """A loop as in a tutorial."""

    def __init__(self, model: Deployable, precision: str) -> None:
        self.model, self.precision = model.train(), precision
        self.optimiser = torch.optim.SGD(
            model.network.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=DECAY
        )

    def __call__(self, batch: Batch) -> None:
        x = self.model.normalise(batch.pixels.to(device()))
        targets = batch.labels.to(device())
        with autocast(self.precision):
            loss = functional.cross_entropy(
                self.model.network(x.contiguous(memory_format=torch.channels_last)), targets
            )
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.total = loss.item()


class Ours:
    """The step of the training, and what the loop does around it."""

    def __init__(
        self, model: Deployable, recipe: Recipe, images: Noise, side: int, observers: Sequence[Observer]
    ) -> None:
        self.job = Job(
            model=model,
            train=images,
            val=images,
            recipe=recipe,
            seed=0,
            directory=Path(tempfile.gettempdir()),
            classes=(),
            outputs=CLASSES,
            crop=side,
            device=device(),
            policy_source=None,
        )
        self.state = State(self.job, observers)
        for observer in observers:
            observer.begin(self.job)
        self.state.prepare()

    def __call__(self, batch: Batch) -> None:
        state = self.state
        rate = state.set_rate()
        started = time.monotonic()
        taken = take(state, batch, None, due=False)
        state.progress.sums.add(loss=taken.loss, right=taken.right, images=taken.images, norm=taken.norm)
        state.progress.step += 1
        for observer in state.observers:
            observer.step(
                Step(
                    number=state.number,
                    epoch=1,
                    rows=batch.rows,
                    items=batch.rows,
                    losses=taken.losses,
                    lr=rate,
                    gradient=taken.norm,
                    waited=0.0,
                    seconds=time.monotonic() - started,
                )
            )


def measured(name: str, side: int, size: int, arguments: argparse.Namespace) -> list[float]:
    """Of each pair of blocks, our images a second over theirs."""
    torch.manual_seed(0)
    precision = arithmetic(arguments.precision)[1]
    images = Noise(SETS * size, side)
    rows = [np.arange(number * size, (number + 1) * size) for number in range(SETS)]
    batches = [
        Batch(each, torch.from_numpy(images.pixels[each]), torch.from_numpy(images.labels[each])) for each in rows
    ]

    def model() -> Deployable:
        network = zoo.build(zoo.resolve(name), classes=CLASSES).to(device(), memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        return Deployable(network, default_preprocess(side)).to(device())

    recipe = Recipe(
        batch=size,
        optimiser="sgd",
        lr=0.01,
        weight_decay=DECAY,
        epochs=10_000,
        label_smoothing=0,
        precision=arguments.precision,
    )
    observers: list[Observer] = []
    if arguments.observed:
        from torchstone.train.telemetry import Telemetry

        observers.append(Telemetry())
    ways = {"ours": Ours(model(), recipe, images, side, observers), "bare": Bare(model(), precision)}

    def block(way: Any) -> float:
        started = time.perf_counter()
        for number in range(arguments.steps):
            way(batches[number % SETS])
        return time.perf_counter() - started

    for way in ways.values():
        block(way)
    draws, ratios = np.random.default_rng(0), []
    for _ in range(arguments.pairs):
        order = [list(ways), list(ways)[::-1]][int(draws.integers(2))]
        seconds = {one: block(ways[one]) for one in order}
        ratios.append(seconds["bare"] / seconds["ours"])
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=NETWORKS, help="NAME:SIDE:BATCH")
    parser.add_argument("--pairs", type=int, default=15, help="blocks of each loop")
    parser.add_argument("--steps", type=int, default=4, help="a block")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--observed", action="store_true", help="with the coach's measurements")
    arguments = parser.parse_args()
    torch.set_num_threads(machine.usable_cores())
    print(conditions())
    for text in arguments.networks:
        name, side, size = text.rsplit(":", 2)
        ratios = measured(name, int(side), int(size), arguments)
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(
            f"{name:24} side {side:>3} batch {size:>3}  ours / bare {middle:.3f}  (quartiles {low:.3f} to {high:.3f})"
        )


if __name__ == "__main__":
    main()
