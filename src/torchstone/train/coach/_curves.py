"""What several checks read from the curves of a training."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from torchstone.core.values import Finding
from torchstone.train.coach import FEW, Layer, Record

USUAL = 0.01
"""Of the weights: the longest step that is usual in the median layer."""


def short(record: Record) -> bool:
    """Whether there are too few epochs, or none with numbers, to read a curve."""
    return record.epochs < FEW or not np.isfinite(record.curve("train_loss")).any() or record.guessing <= 0


def learned(record: Record) -> float:
    """Share of what guessing leaves open that the network explains on val at its best epoch: 1 is all, 0 is nothing,
    and -1 the least that is said."""
    best = float(np.nanmin(record.curve("val_loss"), initial=np.inf))
    return max(-1.0, 1 - float(record.unexplained(np.array([best]))[0]))


def usual_update(record: Record) -> NDArray[np.float64]:
    """float64[epochs]: how far a step goes, against the weights, in the median layer."""
    rows = np.array([layer.update for layer in record.layers], np.float64)
    if not rows.size:
        return np.zeros(0)
    known = np.isfinite(rows).any(0)
    return np.nanmedian(rows[:, known], axis=0)


def most(layers: list[tuple[Layer, float]], shown: int = 3) -> str:
    """``'a' (Conv2d) 62 %, 'b' (Linear) 50 % and 2 more``, of shares."""
    named = ", ".join(f"{layer.title} {100 * share:.0f} %" for layer, share in layers[:shown])
    return named + (f" and {len(layers) - shown} more" if len(layers) > shown else "")


def rate(value: float) -> str:
    """A learning rate as one types it, with two digits."""
    return f"{value:.2g}"


def lower(record: Record) -> str:
    """The rate that is proposed where it is too high, the same by every check: a tenth, or less where the steps are
    known to be even longer than that."""
    updates = usual_update(record)
    length = float(np.nanmax(updates, initial=0.0))
    return rate(record.recipe.lr * (min(0.1, USUAL / length) if length else 0.1))


def warn(check: str, message: str, hint: str, *, tries: Sequence[str] = (), **evidence: object) -> list[Finding]:
    """The one warning of a check. Its hint begins with ``tries``, options of the recipe. What is no number becomes
    None: JSON has no other word for it."""
    numbers = {name: None if isinstance(value, float) and not math.isfinite(value) else value
               for name, value in evidence.items()}  # fmt: skip
    hint = " ".join(f"--set {option}" for option in tries) + hint
    return [Finding(check=check, severity="warning", message=message, hint=hint, tries=tuple(tries), evidence=numbers)]
