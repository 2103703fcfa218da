"""Steps too short to arrive."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from torchstone.core.values import Finding
from torchstone.train.coach import SYMPTOMS, Record
from torchstone.train.coach._curves import learned, rate, short, usual_update, warn

SHORT = 5e-4
"""A step against the weights, in the median layer, at its longest."""
LEARNED = 0.7
"""What is explained on val from which on the rate was enough."""


class RateTooLow:
    """The weights hardly move, and most is still to be learned when the epochs are over."""

    requires: ClassVar[tuple[str, ...]] = ()
    explains: ClassVar[tuple[str, ...]] = SYMPTOMS

    def run(self, context: Record) -> list[Finding]:
        updates = usual_update(context)
        if short(context) or not len(updates):
            return []
        length, explained = float(np.max(updates)), learned(context)
        if length > SHORT or length == 0 or explained > LEARNED:
            return []
        losses = context.curve("train_loss")
        higher = context.recipe.lr * float(np.clip(3e-3 / length, 5, 1000))
        return warn(
            "rate_too_low",
            f"a step moved the weights by {100 * length:.2g} % of themselves in the median layer (usual: 0.1 to 1 %), "
            f"and the loss of training only went from {losses[0]:.3f} to {losses[-1]:.3f}: the learning rate is too "
            "low",
            ", or measure one: --find-lr",
            tries=(f"lr={rate(higher)}",),
            update=length,
            explained=explained,
            rate=context.recipe.lr,
        )
