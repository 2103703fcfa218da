"""Gradients far larger than a step can use."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from torchstone.core.values import Finding
from torchstone.train.coach import SYMPTOMS, Record
from torchstone.train.coach._curves import lower, warn

LARGE = 100.0
"""Norm of the whole gradient, in the median step of an epoch; usual are 0.1 to 10."""


class ExplodingGradients:
    """The gradient's norm is in the hundreds; the layers in which it is largest."""

    requires: ClassVar[tuple[str, ...]] = ()
    explains: ClassVar[tuple[str, ...]] = ("divergence", "dead_relus", *SYMPTOMS)

    def run(self, context: Record) -> list[Finding]:
        norms = context.curve("gradient")
        if not len(norms) or not np.nanmax(norms, initial=0.0) >= LARGE:
            return []
        at = int(np.nanargmax(norms))
        by_layer = [(layer.gradient[at], layer) for layer in context.layers if at < len(layer.gradient)]
        by_layer = sorted((pair for pair in by_layer if np.isfinite(pair[0])), key=lambda pair: -pair[0])
        middle = float(np.median([size for size, _ in by_layer])) if by_layer else 0.0
        named = ", ".join(
            f"{layer.title} {size:.2g}" + (f" ({size / middle:.0f} times the median layer's)" if middle else "")
            for size, layer in by_layer[:3]
        )
        recipe = context.recipe
        option = "clip=1" if not recipe.clip or recipe.clip > 1 else f"lr={lower(context)}"
        return warn(
            "exploding_gradients",
            f"the norm of the gradient was {norms[at]:.3g} in the median step of epoch {at + 1} (usual: 0.1 to 10)"
            + (f", largest for a weight in {named}" if named else "")
            + ": an error is multiplied from layer to layer",
            "; a longer warm-up (--set warmup=0.2); a network with batch norms, or other initial weights "
            "(--set init=kaiming)",
            tries=(option,),
            norm=float(norms[at]),
            epoch=at + 1,
            largest=float(np.nanmax(context.curve("gradient_largest"), initial=0.0)),
            layers={layer.name: float(size) for size, layer in by_layer[:10]},
        )
