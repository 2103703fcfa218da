"""Images of a single colour."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from torchstone.audit import AuditContext
from torchstone.core.values import Finding

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RANGE = 0.02
"""Luma, 0..1, from the 1st to the 99th percentile: five of 256 levels, which compression alone can make."""

DEVIATION = 0.01
"""Standard deviation of luma, 0..1: a small thing on an even ground has more."""


class Blank:
    """Nothing is in them, whatever their class."""

    requires: ClassVar[tuple[str, ...]] = ()

    def run(self, context: AuditContext) -> list[Finding]:
        found = context.unusual(
            "blank",
            context.column("luma_std"),
            is_blank(context),
            "blank: one colour from edge to edge",
            "delete them: they are placeholders, or what a failed download or a broken camera left",
        )
        return [one.model_copy(update={"decision": "drop"}) if one.items else one for one in found]


def is_blank(context: AuditContext) -> NDArray[np.bool_]:
    """For each row, whether its image is of a single colour."""
    spread = context.column("luma_p99") - context.column("luma_p1")
    return (spread <= RANGE) & (context.column("luma_std") < DEVIATION)
