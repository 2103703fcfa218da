"""A training that waits for its images."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from torchstone.core import machine, registry
from torchstone.core.values import Finding
from torchstone.train.coach import Record
from torchstone.train.coach._curves import warn

WAITED = 0.3
"""Share of a step's time."""
WORTH = 2.0
"""Seconds of waiting in all below which nothing is gained."""


class DataBound:
    """A large part of each step goes by before its batch is there."""

    requires: ClassVar[tuple[str, ...]] = ()
    title: ClassVar[str] = "Data-bound"

    def run(self, context: Record) -> list[Finding]:
        waited, seconds = context.curve("waited_share"), context.curve("seconds")
        usual = waited[1:] if len(waited) > 1 else waited  # the first epoch also fills the cache
        usual = usual[np.isfinite(usual)]
        if not len(usual) or np.median(usual) < WAITED or np.nansum(waited * seconds) < WORTH:
            return []
        share, workers = float(np.median(usual)), context.recipe.workers
        tries = []
        cores = machine.usable_cores()
        if workers is not None and workers < cores:
            tries.append(f"--workers {cores} (or leave it out: the number is chosen by what a batch costs)")
        if registry.missing_packages(("simplejpeg",)):
            tries.append("a faster decoder: pip install 'torchstone[fast]'")
        if context.recipe.augment != "light":
            tries.append("a cheaper policy: --set augment=light")
        tries.append("a smaller --image-size, or images stored closer to it")
        return warn(
            "data_bound",
            f"{100 * share:.0f} % of a step's time was spent waiting for its batch, {np.nansum(waited * seconds):.0f} "
            "seconds in all: reading, decoding and augmenting the images is what limits the speed",
            "; ".join(tries),
            waited_share=share,
            seconds=float(np.nansum(waited * seconds)),
            workers=workers,
        )
