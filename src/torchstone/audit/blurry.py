"""Images without fine detail."""

from __future__ import annotations

from typing import ClassVar

from torchstone.audit import AuditContext
from torchstone.audit.blank import is_blank
from torchstone.core.values import Finding

BLURRY = 0.15
"""Sharpness (``data.measure.sharpness``; a sharp photograph has about 0.7 at any size). Measured: below it are 6 of
flowers5's 3,670 photos and none of hymenoptera's 397, of CIFAR-10's 60,000 and of scikit-learn's and
MNIST's digits; and 100 % of the photos that were blurred by 1 % of their shorter side (Gaussian, standard deviation) or
enlarged 4 times, 92 to 99 % of those blurred by 3 %, 73 to 97 % of those blurred by 0.5 %."""

COMMON = 0.1
"""Share of the images from which on they are smooth by nature: 23 % of BCCD's blood cells are, sharp as they are."""


class Blurry:
    """Out of focus, shaken, or enlarged from something much smaller."""

    requires: ClassVar[tuple[str, ...]] = ()

    def run(self, context: AuditContext) -> list[Finding]:
        sharpness = context.column("sharpness")
        return context.unusual(
            "blurry",
            sharpness,
            (sharpness < BLURRY) & ~is_blank(context),
            "blurred, or enlarged from something small",
            "look at them: keep those in which the class can still be told",
            common=COMMON,
        )
