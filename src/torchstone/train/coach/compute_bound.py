"""A training whose arithmetic could be cheaper."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from torchstone.core.values import Finding
from torchstone.train.coach import Record

WAITED = 0.1
"""Share of a step's time up to which the network's arithmetic is what limits the speed."""
WORTH = 2.0
"""Seconds of a training below which nothing is gained."""


class ComputeBound:
    """The network takes nearly all of a step's time, in float32 on a processor that multiplies BF16 itself."""

    requires: ClassVar[tuple[str, ...]] = ()
    title: ClassVar[str] = "Compute-bound"

    def run(self, context: Record) -> list[Finding]:
        waited, seconds = context.curve("waited_share"), context.curve("seconds")
        known = waited[np.isfinite(waited)]
        if context.recipe.precision != "f32" or not context.bf16_pays or not len(known):
            return []
        if np.median(known) > WAITED or np.nansum(seconds) < WORTH:
            return []
        return [
            Finding(
                check="compute_bound",
                severity="info",
                message=f"{100 * (1 - float(np.median(known))):.0f} % of a step's time went into the network, computed "
                "in float32; this processor multiplies BF16 itself, which usually takes half as long",
                hint="--set precision=auto",
                evidence={"waited_share": float(np.median(known)), "seconds": float(np.nansum(seconds))},
            )
        ]
