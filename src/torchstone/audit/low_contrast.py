"""Images whose brightest and darkest parts hardly differ."""

from __future__ import annotations

from typing import ClassVar

from torchstone.audit import AuditContext
from torchstone.audit.blank import is_blank
from torchstone.audit.bright import BRIGHT
from torchstone.audit.dark import DARK
from torchstone.core.values import Finding

LOW = 0.25
"""Luma, 0..1, from the 1st to the 99th percentile. Measured: with a contrast reduced to
0.15 every photo is below it; as they are, 78 of CIFAR-10's 60,000 and none of flowers5's and hymenoptera's 4,067."""


class LowContrast:
    """Fog, glare, a scan that is too faint. What is dark or bright altogether is reported as that."""

    requires: ClassVar[tuple[str, ...]] = ()

    def run(self, context: AuditContext) -> list[Finding]:
        p1, p5, p99 = (context.column(f"luma_p{rank}") for rank in (1, 5, 99))
        otherwise = (p99 < DARK) | ((p1 + p5) / 2 > BRIGHT) | is_blank(context)
        return context.unusual(
            "low_contrast",
            p99 - p1,
            (p99 - p1 < LOW) & ~otherwise,
            f"low in contrast: their brightness spans less than {100 * LOW:.0f} % of the range",
            "look at them; an augmentation of the contrast makes a model indifferent to it",
        )
