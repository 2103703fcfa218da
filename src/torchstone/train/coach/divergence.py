"""A loss that gets worse."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from torchstone.core.values import Finding
from torchstone.train.coach import SYMPTOMS, Record
from torchstone.train.coach._curves import lower, short, warn

WORSE = 0.2
"""Of what guessing leaves open: by so much the loss of training ends above its lowest."""
WILD = 1.5
"""Times the loss of guessing: no network that learns has an epoch like that."""


class Divergence:
    """The loss of training ends far above its lowest, or was far above that of guessing."""

    requires: ClassVar[tuple[str, ...]] = ()
    explains: ClassVar[tuple[str, ...]] = ("dead_relus", *SYMPTOMS)

    def run(self, context: Record) -> list[Finding]:
        if short(context):
            return []
        losses = context.curve("train_loss")
        low, end = int(np.nanargmin(losses)), float(losses[-1])
        worse = end - losses[low] > WORSE * context.guessing and end > 1.3 * losses[low]
        high = int(np.nanargmax(losses))
        wild = float(losses[high]) > WILD * context.guessing + context.floor
        if not (worse or wild):
            return []
        recipe = context.recipe
        seen = []
        if worse:
            seen.append(f"ended at {end:.3g}, after {losses[low]:.3g} in epoch {low + 1}")
        if wild:
            seen.append(f"was {losses[high]:.3g} in epoch {high + 1}, where guessing gives {context.guessing:.3g}")
        warmup = max(0.2, min(0.5, 2 * recipe.warmup))
        clip = () if recipe.clip and recipe.clip <= 1 else ("clip=1",)
        return warn(
            "divergence",
            f"the loss of training {' and '.join(seen)}: the steps lead away from what was learned",
            f", or a longer --set warmup={warmup:g}",
            tries=(f"lr={lower(context)}", *clip),
            lowest=float(losses[low]),
            lowest_epoch=low + 1,
            highest=float(losses[high]),
            last=end,
            guessing=context.guessing,
        )
