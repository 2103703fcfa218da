"""Units that put out nothing, whatever the image."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from torchstone.core.values import Finding
from torchstone.train.coach import SYMPTOMS, Record
from torchstone.train.coach._curves import lower, most, warn

DEAD = 0.6
"""Share of a layer's units. A healthy LeNet-5 on the digits has 0.35 in its first dense layer."""
DONE = 0.01
"""Share of what guessing leaves open below which the gradients are zero because nothing is left to learn."""


class DeadRelus:
    """Layers in which no gradient reached a large part of the units for hundreds of images."""

    requires: ClassVar[tuple[str, ...]] = ()
    explains: ClassVar[tuple[str, ...]] = ("rate_too_low", *SYMPTOMS)
    title: ClassVar[str] = "Dead ReLUs"

    def run(self, context: Record) -> list[Finding]:
        last = [(layer, next((share for share in reversed(layer.silent) if np.isfinite(share)), 0.0))
                for layer in context.layers]  # fmt: skip
        dead = [(layer, share) for layer, share in last if share >= DEAD]
        losses = context.curve("train_loss")
        if not dead or (len(losses) and losses[-1] - context.floor < DONE * context.guessing):
            return []
        # A layer that lets nothing through silences all before it: it is the one to look at.
        blocking = [at for at, (_, share) in enumerate(last) if share == 1.0]
        if blocking:
            dead = [(layer, share) for layer, share in last[blocking[-1] :] if share >= DEAD]
        dead.sort(key=lambda pair: -pair[1])
        return warn(
            "dead_relus",
            f"units that no gradient reaches any more: {most(dead)}"
            + ("; all layers before are cut off with it" if blocking and blocking[-1] > 0 else "")
            + ". Their ReLU puts out zero for every image, usually since a step that was too long",
            "; a network with batch norms, or other initial weights (--set init=kaiming)",
            tries=(f"lr={lower(context)}", "warmup=0.2"),
            layers={layer.name: share for layer, share in dead[:10]},
        )
