"""The learning-rate range test (Smith 2017, section 3.3): the rate rises from nothing to far too much over a hundred
steps, and the losses on the way say which rate to train with.

It trains a copy of the network with the very steps of a training (its augmentation, mixing, frozen layers, clipping and
precision), writes nothing, and leaves the global generators as they were.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from torchstone.core import console
from torchstone.core.contracts import ImageSet
from torchstone.core.errors import DataError, TrainingError
from torchstone.core.values import Value
from torchstone.data.augment import Augmenter
from torchstone.data.loader import Batch, batches
from torchstone.data.sampling import epoch_of
from torchstone.models.deployable import Deployable
from torchstone.train import optim, regularise, sizes
from torchstone.train.device import device
from torchstone.train.job import Job
from torchstone.train.loop import class_weights_of, outputs_of
from torchstone.train.recipe import Recipe
from torchstone.train.state import State
from torchstone.train.step import take

STEPS = (100, 400)
"""The second number is tried where the loss did not fall within the first: some networks need longer to begin."""
DECADES = 6
"""Below the optimiser's highest rate, where the test begins."""
WIDTH = 0.2
"""Decades of the kernel's standard deviation with which the losses are smoothed."""
DIVERGED = 4.0
"""Times the lowest smoothed loss, above which there is nothing more to learn."""
FEWEST = 20
"""Losses without which nothing can be said."""
FALL = 0.05
"""Share of the first loss by which it has to fall."""
BELOW_LOWEST = 5.0
"""The rate of the lowest loss over this is proposed: near the lowest itself, some steps break already. The rate where
the loss falls fastest, which others propose, is far too low where a fresh head's large outputs settle first."""


class Curve(Value):
    """What a range test saw, and what follows from it."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    """Mean over the batch of each rate."""
    smoothed: tuple[float, ...]
    diverged: bool
    """Whether it ended before the highest rate, because the loss had grown or was no number."""
    proposed: float | None
    """A peak rate for this network, these images and this recipe; None where the curve does not say."""
    reason: str


def find(
    model: Deployable,
    train: ImageSet,
    recipe: Recipe,
    seed: int,
    *,
    classes: Sequence[str] = (),
    policy_source: bytes | None = None,
    steps: Sequence[int] = STEPS,
) -> Curve:
    """Raise the rate over ``DECADES`` to the optimiser's highest on a copy of ``model`` and read the losses."""
    if len(train) < recipe.batch:
        raise DataError(
            f"{len(train)} training images do not fill one batch of {recipe.batch}", hint="a smaller --batch"
        )
    found = None
    for count in steps:
        found = _tried(model, train, recipe, seed, classes, policy_source, count)
        if found.proposed is not None:
            break
    assert found is not None
    return found


def _tried(
    model: Deployable,
    train: ImageSet,
    recipe: Recipe,
    seed: int,
    classes: Sequence[str],
    policy_source: bytes | None,
    steps: int,
) -> Curve:
    highest = optim.KINDS[recipe.optimiser].highest
    rates = np.geomspace(highest / 10**DECADES, highest, steps)
    tried = copy.deepcopy(model).to(device())
    tried.network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    with torch.random.fork_rng():
        regularise.dropouts(tried.network, recipe)
        job = Job(
            model=tried,
            train=train,
            val=train,
            recipe=recipe,
            seed=seed,
            directory=Path(),
            classes=classes,
            outputs=outputs_of(tried, train),
            crop=train.images(slice(0, 1)).shape[1],
            device=device(),
            policy_source=policy_source,
        )
        sizes.check(tried.network, recipe, job.crop, tried.channels)
        losses = _losses(job, rates)
    return read(rates[: len(losses)], np.array(losses), diverged=len(losses) < steps)


def read(rates: NDArray[np.float64], losses: NDArray[np.float64], *, diverged: bool) -> Curve:
    """The proposal that follows from the losses at ``rates``: a fifth of that at which the smoothed loss was lowest."""
    smoothed = _smooth(rates, losses)
    proposed, reason = _proposal(rates, smoothed)
    return Curve(
        rates=tuple(map(float, rates)),
        losses=tuple(map(float, losses)),
        smoothed=tuple(map(float, smoothed)),
        diverged=diverged,
        proposed=proposed,
        reason=reason,
    )


def _losses(job: Job, rates: NDArray[np.float64]) -> list[float]:
    """The loss at each rate, as far as the network stands it."""
    state = State(job, ())
    state.prepare()
    weights = class_weights_of(job)
    losses: list[float] = []
    for rate, batch in zip(rates, console.track(_batches(job, len(rates)), "rates", len(rates)), strict=True):
        optim.set_rate(state.optimiser, float(rate))
        try:
            taken = take(state, batch, weights, due=False)
        except TrainingError:
            if len(losses) < FEWEST:  # no rate has done this
                raise
            break
        losses.append(taken.loss / taken.images)
        state.progress.step += 1
        if len(losses) >= FEWEST:
            smoothed = _smooth(rates, np.array(losses))
            if not math.isfinite(smoothed[-1]) or smoothed[-1] > DIVERGED * smoothed.min():
                break
    return losses


def _batches(job: Job, steps: int) -> Iterator[Batch]:
    """So many batches, from as many passes over the images as that takes."""
    recipe = job.recipe
    for number in range(math.ceil(steps / job.steps)):
        images, order = epoch_of(job.train, recipe.sampler, job.seed, number, job.classes)
        count = min(job.steps, steps - number * job.steps)
        plan = [order[step * recipe.batch : (step + 1) * recipe.batch] for step in range(count)]
        make = Augmenter(recipe.augment, job.crop, job.seed, number, job.policy_source)
        yield from batches(images, plan, make, workers=recipe.workers)


def _smooth(rates: NDArray[np.float64], losses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Averages over the neighbours on both sides, by a normal curve of ``WIDTH`` decades."""
    places = np.log10(rates[: len(losses)])
    kernel = np.exp(-0.5 * ((places[:, None] - places) / WIDTH) ** 2)
    return (kernel @ losses) / kernel.sum(1)


def _proposal(rates: NDArray[np.float64], smoothed: NDArray[np.float64]) -> tuple[float | None, str]:
    if len(smoothed) < FEWEST:
        return None, f"the loss broke after {len(smoothed)} steps, at a rate of {rates[-1]:.1e}"
    lowest = int(smoothed.argmin())
    fall = 1 - smoothed[lowest] / smoothed[0]
    if fall < FALL:
        return None, (
            f"the loss fell by {100 * max(0.0, fall):.0f} % at most over {len(smoothed)} steps: the curve does not say "
            "which rate is good"
        )
    told = f"the loss was lowest, {smoothed[lowest]:.3g}, at {rates[lowest]:.1e}"
    if lowest == len(smoothed) - 1:
        told += ", the highest rate of the test"
    return _rounded(float(rates[lowest]) / BELOW_LOWEST), f"{told}: a fifth of that is proposed"


def _rounded(rate: float) -> float:
    """To one digit: more would say more than the curve does."""
    return float(f"{rate:.0e}")
