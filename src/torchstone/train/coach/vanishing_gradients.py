"""Gradients that do not reach the first layers."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from torchstone.core.values import Finding
from torchstone.train.coach import SYMPTOMS, Layer, Record
from torchstone.train.coach._curves import learned, short, warn

SMALL = 1e-4
"""Gradient of a weight (root mean square) against that of the layer where it is largest."""
LEARNED = 0.7
"""What is explained on val from which on the gradients were enough."""


class VanishingGradients:
    """In the first layers the gradient is a tiny part of what it is in the last ones."""

    requires: ClassVar[tuple[str, ...]] = ()
    explains: ClassVar[tuple[str, ...]] = ("rate_too_low", *SYMPTOMS)

    def run(self, context: Record) -> list[Finding]:
        usual = [(layer, _usual(layer)) for layer in context.layers]
        usual = [(layer, size) for layer, size in usual if np.isfinite(size) and size > 0]
        if short(context) or len(usual) < 3 or learned(context) > LEARNED:
            return []
        largest, most = max(usual, key=lambda pair: pair[1])
        first, least = usual[0]
        if least >= SMALL * most or first is largest:
            return []
        reached = [layer for layer, size in usual if size < SMALL * most]
        return warn(
            "vanishing_gradients",
            f"the gradient of a weight in the first layer, {first.title}, is {least:.1e}; in {largest.title} it is "
            f"{most:.1e}, {most / least:,.0f} times as much. {len(reached)} of {len(usual)} layers get less than a "
            "ten-thousandth of that: what is wrong does not reach the layers that see the image",
            "; or a network with batch norms or shortcuts (--model resnet18)",
            tries=("init=kaiming" if context.recipe.init != "kaiming" else "init=xavier",),
            first=least,
            largest=most,
            layers={layer.name: float(size) for layer, size in usual[:10]},
        )


def _usual(layer: Layer) -> float:
    """Median over the epochs; NaN where most of the layer is silent, which is another finding."""
    known = [size for size in layer.gradient if np.isfinite(size)]
    silent = [share for share in layer.silent if np.isfinite(share)]
    return float(np.median(known)) if known and not (silent and silent[-1] > 0.9) else float("nan")
