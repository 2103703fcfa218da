"""Which training images an epoch shows, in which order; and how much each class counts in the loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator

from torchstone.core import seeding
from torchstone.core.contracts import ImageSet
from torchstone.core.errors import ConfigError, nearest

POWERS = {"shuffle": 1.0, "sqrt": 0.5, "balanced": 0.0}
"""A class of n images gets a share of the epoch in proportion to n to this power (Kang et al. 2020, formula 1)."""

DESCRIPTION = (
    f"which images an epoch shows: {', '.join(POWERS)} (shuffle: each once; balanced: every class equally often; sqrt: "
    "half way), or CLASS=WEIGHT,... (the others weigh 1)"
)


def check_sampler(sampler: str) -> str:
    """``sampler`` itself; a ConfigError where it is neither a name nor weights."""
    if sampler not in POWERS:
        _weights(sampler)
    return sampler


def check_classes(sampler: str, classes: Sequence[str]) -> None:
    """Raise the ConfigError of weights for a class that is not among ``classes``."""
    for name in [] if sampler in POWERS else _weights(sampler):
        if name not in classes:
            raise ConfigError(f"the sampler weighs '{name}', which is no class here", hint=nearest(name, classes))


SamplerName = Annotated[str, AfterValidator(check_sampler)]
"""A sampler as settings and recipes hold it."""


def epoch_of(
    images: ImageSet, sampler: str, seed: int, epoch: int, classes: Sequence[str] = ()
) -> tuple[ImageSet, NDArray[np.intp]]:
    """The images of one epoch and the order of their rows: as many as the part has, whatever the sampler.

    ``shuffle`` takes each once. The others take from each class what its share amounts to, to the nearest image; within
    a class every image comes before any comes again, also from one epoch to the next. An image that comes again within
    an epoch has a row of its own, and so an augmentation of its own. ``classes`` are the names that weights go by.
    """
    if sampler == "shuffle":
        return images, seeding.generator(seed, "order", epoch).permutation(len(images))
    found, counts = np.unique(images.labels, return_counts=True)
    quotas = _quotas(_shares(sampler, found, counts, classes), len(images))
    drawn = np.concatenate(
        [
            np.flatnonzero(images.labels == label)[_turns(count, quota, seed, int(label), epoch)]
            for label, count, quota in zip(found.tolist(), counts.tolist(), quotas.tolist(), strict=True)
        ]
    )
    again = _seen_before(drawn)
    rows = drawn.copy()
    rows[again] = len(images) + np.arange(again.sum())
    order = seeding.generator(seed, "order", epoch).permutation(len(rows))
    return Repeated(images, drawn[again]), rows[order]


class Repeated:
    """Images of which some can be taken again under further row numbers (contracts.ImageSet)."""

    def __init__(self, images: ImageSet, again: NDArray[np.intp]) -> None:
        """Row ``len(images) + i`` is another view of row ``again[i]``."""
        self._inner = images
        self.source_rows: NDArray[np.intp] = np.concatenate([np.arange(len(images)), again])
        self.labels: NDArray[np.int64] = images.labels[self.source_rows]

    @property
    def items(self) -> Sequence[str]:
        return [self._inner.items[int(row)] for row in self.source_rows]

    def __len__(self) -> int:
        return len(self.source_rows)

    def images(self, rows: slice | NDArray[np.intp]) -> NDArray[np.uint8]:
        return self._inner.images(self.source_rows[rows])

    def stored(self, rows: slice | NDArray[np.intp]) -> NDArray[np.uint8]:
        return self._inner.stored(self.source_rows[rows])

    def encoded(self, row: int) -> bytes:
        return self._inner.encoded(int(self.source_rows[row]))


def sources(images: ImageSet, rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """The training part's own rows behind ``rows`` of an epoch's ``images``: an image that comes again has one."""
    return images.source_rows[rows] if isinstance(images, Repeated) else rows


def class_weights(labels: NDArray[np.int64], classes: int, beta: float) -> NDArray[np.float32]:
    """float32[classes]: the weight of each class in the loss, the inverse of its effective number of images
    (1 - βⁿ) / (1 - β) (Cui et al. 2019, formula 2). β = 0 weighs all alike, β towards 1 by inverse frequency.

    The average training image weighs 1, so that the learning rate keeps its meaning. A class without images, which
    only label smoothing can ask for, weighs as much as one with a single image.
    """
    counts = np.maximum(1, np.bincount(labels, minlength=classes))
    weights = (1 - beta) / -np.expm1(counts * math.log(beta)) if beta else np.ones(classes)
    return (weights / weights[labels].mean()).astype(np.float32)


def _weights(sampler: str) -> dict[str, float]:
    """The weights of ``rose=3,tulip=0.5``."""
    weights = {}
    for pair in sampler.split(","):
        name, equals, number = pair.rpartition("=")
        if not equals:
            raise ConfigError(f"unknown sampler '{sampler}'", hint=f"{nearest(sampler, POWERS)} (or CLASS=WEIGHT,...)")
        try:
            weight = float(number)
        except ValueError:
            weight = 0.0
        if not 0 < weight < math.inf:
            raise ConfigError(
                f"'{pair}' is not a class with its weight", hint="a weight is a number above 0, such as rose=3"
            )
        weights[name.strip()] = weight
    return weights


def _shares(
    sampler: str, found: NDArray[np.int64], counts: NDArray[np.int64], classes: Sequence[str]
) -> NDArray[np.float64]:
    """The share of the epoch of each class that has images."""
    if sampler in POWERS:
        amounts = counts ** POWERS[sampler]
    else:
        check_classes(sampler, classes)
        weights = _weights(sampler)
        amounts = counts * np.array([weights.get(classes[int(label)], 1.0) for label in found])
    return amounts / amounts.sum()


def _quotas(shares: NDArray[np.float64], total: int) -> NDArray[np.intp]:
    """Whole numbers in proportion to ``shares`` that add up to ``total``: those with the largest remainders are
    rounded up."""
    exact = shares * total
    quotas = np.floor(exact).astype(np.intp)
    up = np.argsort(quotas - exact, kind="stable")[: total - quotas.sum()]
    quotas[up] += 1
    return quotas


def _turns(count: int, quota: int, seed: int, label: int, epoch: int) -> NDArray[np.intp]:
    """``quota`` of ``count`` numbers: the ``epoch``-th stretch of an endless row of permutations."""
    positions = epoch * quota + np.arange(quota)
    passes = positions // count
    if not quota:
        return positions
    first = int(passes[0])
    shuffled = [
        seeding.generator(seed, "class", label, number).permutation(count)
        for number in range(first, int(passes[-1]) + 1)
    ]
    return np.concatenate(shuffled)[positions - first * count]


def _seen_before(rows: NDArray[np.intp]) -> NDArray[np.bool_]:
    """For each place whether the same row stands at an earlier one."""
    _, first = np.unique(rows, return_index=True)
    again = np.ones(len(rows), bool)
    again[first] = False
    return again
