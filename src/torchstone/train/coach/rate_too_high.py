"""Steps so long that they jump over what there is to learn."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from torchstone.core.values import Finding
from torchstone.train.coach import SYMPTOMS, Record
from torchstone.train.coach._curves import learned, lower, short, usual_update, warn

LONG = 0.1
"""A step against the weights, in the median layer. The usual is a thousandth to a hundredth."""
LEARNED = 0.9
"""What is explained on val from which on the rate did no harm: long steps at the start, and a schedule that comes down,
are a way to train fast."""


class RateTooHigh:
    """Each step moves the weights by a large share of themselves, and what is learned suffers."""

    requires: ClassVar[tuple[str, ...]] = ()
    explains: ClassVar[tuple[str, ...]] = ("exploding_gradients", "divergence", "dead_relus", *SYMPTOMS)

    def run(self, context: Record) -> list[Finding]:
        updates = usual_update(context)
        if short(context) or not len(updates):
            return []
        length, explained = float(np.max(updates)), learned(context)
        if length < LONG or explained > LEARNED:
            return []
        return warn(
            "rate_too_high",
            f"a step moved the weights by {100 * length:.0f} % of themselves in the median layer (usual: 0.1 to 1 %), "
            f"and {100 * max(0.0, explained):.0f} % of what the labels say was learned: the learning rate is too high",
            ", or measure one: --find-lr",
            tries=(f"lr={lower(context)}",),
            update=length,
            explained=explained,
            rate=context.recipe.lr,
        )
