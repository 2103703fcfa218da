"""Images that are almost black."""

from __future__ import annotations

from typing import ClassVar

from torchstone.audit import AuditContext
from torchstone.audit.blank import is_blank
from torchstone.core.values import Finding

DARK = 0.32
"""Luma, 0..1, that 99 % of the pixels of a dark image do not exceed. Measured: every photo whose brightness was
reduced to 0.3 is below it; of the photos as they are, 2 of flowers5's 3,670 (red roses: pure red has a luma of 0.3),
11 of CIFAR-10's 60,000 (night, and pure blue), and none of hymenoptera's 397."""


class Dark:
    """Looks at the brightest hundredth of the pixels: a night scene with a lamp in it is not dark."""

    requires: ClassVar[tuple[str, ...]] = ()

    def run(self, context: AuditContext) -> list[Finding]:
        brightest = context.column("luma_p99")
        return context.unusual(
            "dark",
            brightest,
            (brightest < DARK) & ~is_blank(context),
            f"dark: not a hundredth of the pixels is brighter than {100 * DARK:.0f} % of white",
            "look at them: what cannot be seen cannot be learned; brighten them, or leave them out",
        )
