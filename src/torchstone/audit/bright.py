"""Images that are almost white."""

from __future__ import annotations

from typing import ClassVar

from torchstone.audit import AuditContext
from torchstone.audit.blank import is_blank
from torchstone.core.values import Finding

BRIGHT = 0.7
"""Luma, 0..1, of the darkest pixels (the mean of the 1st and the 5th percentile). Measured: every photo
whose distance from white was reduced to a fifth is above it, and 18 to 44 % of those overexposed five times; of the
photos as they are, 1 of flowers5's 3,670 (washed out), 6 of CIFAR-10's 60,000 (something small on white) and none of
hymenoptera's 397; black digits on white reach 0.41."""


class Bright:
    """Looks at the darkest pixels: a drawing on white paper is not overexposed."""

    requires: ClassVar[tuple[str, ...]] = ()

    def run(self, context: AuditContext) -> list[Finding]:
        darkest = (context.column("luma_p1") + context.column("luma_p5")) / 2
        return context.unusual(
            "bright",
            1 - darkest,
            (darkest > BRIGHT) & ~is_blank(context),
            f"washed out: even their darkest parts are brighter than {100 * BRIGHT:.0f} % of white",
            "look at them: overexposed or faded pictures hold little; leave them out if nothing can be seen",
        )
