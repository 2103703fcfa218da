"""The learning rate over a training, and the momentum that goes with it."""

from __future__ import annotations

import math
from typing import assert_never

from torchstone.train.optim import KINDS
from torchstone.train.recipe import Recipe

START, END = 25.0, 1e4
"""One-cycle begins at the peak rate over START, and ends at that over END (PyTorch's and fast.ai's values)."""
SWING = 0.05
"""By which one-cycle lets the momentum fall and rise around its value."""


def rate(recipe: Recipe, step: int, steps: int) -> float:
    """Learning rate of ``step`` (0-based) of ``steps``.

    All but one-cycle begin with a linear warm-up over the share ``recipe.warmup``; then ``cosine`` falls to zero on
    half a cosine, ``step`` is multiplied by ``drop_factor`` after each share of ``drops``, ``constant`` stays.
    ``one-cycle`` (Smith & Topin 2018, in PyTorch's form of two half cosines) rises over the share ``warmup``, too.
    """
    if recipe.schedule == "one-cycle":
        low = recipe.lr / START
        return _cycle(recipe.warmup, step, steps, start=low, peak=recipe.lr, end=low / END)
    warm = round(recipe.warmup * steps)
    if step < warm:
        return recipe.lr * (step + 1) / warm
    if recipe.schedule == "cosine":
        return recipe.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
    if recipe.schedule == "step":
        return recipe.lr * recipe.drop_factor ** sum(step >= drop * steps for drop in recipe.drops)
    if recipe.schedule == "constant":
        return recipe.lr
    assert_never(recipe.schedule)


def momentum(recipe: Recipe, step: int, steps: int) -> float | None:
    """Momentum (SGD) or first beta (the others) of ``step``: under one-cycle it is lowest where the rate is highest.
    None: it stays as it is."""
    value = KINDS[recipe.optimiser].momentum(recipe)
    if recipe.schedule != "one-cycle" or not value:
        return None
    swing = min(SWING, (1 - value) / 2, value)
    return _cycle(recipe.warmup, step, steps, start=value + swing, peak=value - swing, end=value + swing)


def _cycle(share: float, step: int, steps: int, *, start: float, peak: float, end: float) -> float:
    """From ``start`` to ``peak`` over the first ``share`` of the steps, then to ``end``, each on half a cosine."""
    top = share * steps - 1
    if step <= top:
        return peak if top <= 0 else _half_cosine(start, peak, step / top)
    return _half_cosine(peak, end, (step - top) / max(1.0, steps - 1 - top))


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2.0 * (1 + math.cos(math.pi * share))
