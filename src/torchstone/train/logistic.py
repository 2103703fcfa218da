"""Multinomial logistic regression: the linear layer that fits vectors best, with how much it has to be held back chosen
on images that a fit has not seen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from torchstone.core import machine, seeding
from torchstone.data.parallel import mapped
from torchstone.train import losses
from torchstone.train.recipe import Recipe

if TYPE_CHECKING:
    from numpy.typing import NDArray

L2S = (1e-1, 1e-2, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 3e-6)
"""Candidates for the weight of half the head's squared norm, the strongest first; for features of mean squared length
1."""
FOLDS = 3
TUNING_ROWS = 4_000
"""Images by which that weight is chosen: one number needs no more."""
STEPS = 200
"""Of L-BFGS, at most; from the fit with the next stronger weight it takes few."""
CHUNK = 16_384
"""Vectors worked on at a time."""
SHARED_WORK = 200_000_000
"""Multiplications of one step from which several threads are quicker than one."""


@dataclass(frozen=True)
class Head:
    """Logits are ``vectors @ weight.T + bias``."""

    weight: NDArray[np.float32]
    """float32[classes, d]"""
    bias: NDArray[np.float32]
    """float32[classes]"""
    l2: float

    def logits(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32[n, classes] for float32[n, d]."""
        return vectors @ self.weight.T + self.bias


@dataclass(frozen=True)
class Problem:
    """What is the same for all fits: the loss by ``recipe`` and ``weights`` (of classes), and the shape of the head."""

    recipe: Recipe
    classes: int
    weights: torch.Tensor | None = None
    with_bias: bool = True


def best_head(
    vectors: NDArray[np.float32],
    labels: NDArray[np.int64],
    problem: Problem,
    *,
    views: int = 1,
    seed: int = 0,
) -> Head:
    """The head with the least mean loss plus l2 / 2 of its squared norm.

    ``vectors`` float32[n, d] and ``labels`` int64[n] hold ``views`` rows of an image, one after the other. l2 is that
    of ``L2S`` with the least cross-entropy on images held out of ``FOLDS`` fits; ``seed`` says which, and the last fit
    has them all. An image alone in its class is in every fit; where all are, l2 is the strongest.
    """
    images = len(vectors) // views
    order = seeding.generator(seed, "probe", images).permutation(images)[:TUNING_ROWS]
    order = order[np.argsort(labels[order * views], kind="stable")]  # so that the folds have their share of each class
    tuning = labels[order * views]
    fold_of = np.where(np.bincount(tuning)[tuning] > 1, np.arange(len(order)) % FOLDS, -1)
    parts = []
    for fold in range(FOLDS):
        rows = np.sort(_all_views(order[fold_of != fold], views))
        parts.append((Fit(vectors, labels, rows, problem), np.sort(order[fold_of == fold]) * views))

    def missed(part: tuple[Fit, NDArray[np.intp]], l2: float) -> float:
        fit, rows = part
        logits = fit.to(l2).logits(vectors[rows])
        return float(functional.cross_entropy(*_tensors(logits, labels[rows]), reduction="sum"))

    best, chosen, worse = np.inf, L2S[0], 0
    with _threads(1):  # a fold on each core; together they would spend their time waiting for each other
        for l2 in L2S:
            total = sum(mapped(partial(missed, l2=l2), parts, 1))
            if total < best:
                best, chosen, worse = total, l2, 0
            else:
                worse += 1
            if worse == 2:
                break
    with _threads(1 if vectors.size * problem.classes < SHARED_WORK else machine.usable_cores()):
        return Fit(vectors, labels, None, problem).to(chosen)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Inside, torch computes with that many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Fit:
    """Logistic regression on some rows, from one strength of its restraint to the next."""

    def __init__(
        self, vectors: NDArray[np.float32], labels: NDArray[np.int64], rows: NDArray[np.intp] | None, problem: Problem
    ) -> None:
        """``rows`` None: all of them, read from the disk as they are needed."""
        self._vectors = vectors if rows is None else vectors[rows]
        self._labels = torch.from_numpy(labels if rows is None else labels[rows])
        self._problem = problem
        width = vectors.shape[1]
        self._centre, self._scale = self._moments()
        self._weight = torch.zeros(problem.classes, width, requires_grad=True)
        self._bias = torch.zeros(problem.classes, requires_grad=problem.with_bias)

    def to(self, l2: float) -> Head:
        """The fit with this weight of the norm, from the one before."""
        free = [self._weight, self._bias] if self._problem.with_bias else [self._weight]
        optimiser = torch.optim.LBFGS(
            free, max_iter=STEPS, tolerance_grad=1e-6, tolerance_change=1e-9, line_search_fn="strong_wolfe"
        )

        def closure() -> torch.Tensor:
            optimiser.zero_grad()
            penalty = 0.5 * l2 * self._weight.square().sum()
            penalty.backward()
            total = penalty.detach()
            for start in range(0, len(self._vectors), CHUNK):
                rows = slice(start, start + CHUNK)
                matrix, offset = self._plain()
                logits = functional.linear(_tensor(self._vectors[rows]), matrix, offset)
                found = losses.per_image(logits, self._labels[rows], self._problem.recipe, self._problem.weights)
                loss = found.sum() / len(self._vectors)
                loss.backward()
                total = total + loss.detach()
            return total

        optimiser.step(closure)  # pyright: ignore[reportArgumentType]
        with torch.no_grad():
            matrix, offset = self._plain()
        return Head(matrix.numpy().copy(), offset.numpy().copy(), l2)

    def _plain(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight and bias for features as they come, of those for centred features of mean squared length 1."""
        matrix = self._weight / self._scale
        return matrix, self._bias - matrix @ self._centre if self._problem.with_bias else self._bias

    def _moments(self) -> tuple[torch.Tensor, torch.Tensor]:
        """float32[d], the mean of the features; and the root of their mean squared distance from it."""
        total = np.zeros(self._vectors.shape[1])
        squares = 0.0
        for start in range(0, len(self._vectors), CHUNK):
            block = self._vectors[start : start + CHUNK]
            total += block.sum(0, dtype=np.float64)
            squares += float(np.square(block, dtype=np.float64).sum())
        centre = total / len(self._vectors) if self._problem.with_bias else np.zeros_like(total)
        spread = squares / len(self._vectors) - float(centre @ centre)
        return torch.from_numpy(centre.astype(np.float32)), torch.tensor(max(spread, 1e-12) ** 0.5)


def _all_views(images: NDArray[np.intp], views: int) -> NDArray[np.intp]:
    return (images[:, None] * views + np.arange(views)).ravel()


def _tensor(array: NDArray[np.float32]) -> torch.Tensor:
    """The same memory; of a mapped file, a copy, since torch wants to be able to write."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _tensors(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(logits), torch.from_numpy(labels)
