"""A loss that stands still while the rate does not come down."""

from __future__ import annotations

from typing import ClassVar

from torchstone.core.values import Finding
from torchstone.train.coach import Record
from torchstone.train.coach._curves import lower, short, warn

EPOCHS = 4
"""At the end of a training that have to stand still, at least; or a third of all."""
STILL = 0.04
"""Share by which the loss of training may fall in these and stands still all the same."""
HIGH = 0.3
"""Of the peak rate: below it a loss that stands still has converged."""
DONE = 0.05
"""Share of what guessing leaves open below which nothing is left to learn."""


class Plateau:
    """The loss of training no longer falls, far from what it could be, and the rate is still high."""

    requires: ClassVar[tuple[str, ...]] = ()
    explains: ClassVar[tuple[str, ...]] = ("under_fitting", "never_predicted")

    def run(self, context: Record) -> list[Finding]:
        if short(context) or context.epochs < EPOCHS + 1:
            return []
        window = max(EPOCHS, context.epochs // 3)
        losses, rates = context.curve("train_loss") - context.floor, context.curve("lr")
        first, last = losses[-window:][:2].mean(), losses[-window:][-2:].mean()
        if rates[-window:].min() < HIGH * context.recipe.lr or last < DONE * context.guessing:
            return []
        if not abs(first - last) <= STILL * first:
            return []
        guessing = losses[-1] + context.floor > 0.95 * context.guessing
        at_lower = f"lr={lower(context)}"
        return warn(
            "plateau",
            f"the loss of training has stood at {losses[-1] + context.floor:.3f} for {window} epochs at a rate of "
            f"{rates[-1]:.2g}: "
            + ("it never got below that of guessing" if guessing else "at this rate it gets no lower"),
            "; --find-lr shows where the loss falls at all" if guessing else "; the rate has to come down",
            tries=(at_lower,) if guessing or context.recipe.schedule == "cosine" else ("schedule=cosine",),
            epochs=window,
            loss=float(losses[-1] + context.floor),
            rate=float(rates[-1]),
        )
