"""Images that are tiny beside the others, or long and narrow."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from torchstone.audit import AuditContext
from torchstone.core.values import Finding

TINY = 4
"""Times smaller than the median image's shorter side: thumbnails among photographs."""

LONG = 4
"""Longer side to shorter side: a centre crop shows a quarter of such an image at most."""


class SizeOutliers:
    """Looks at the pixels of each image's sides, upright."""

    requires: ClassVar[tuple[str, ...]] = ()

    def run(self, context: AuditContext) -> list[Finding]:
        width, height = context.column("width"), context.column("height")
        short, long = np.minimum(width, height), np.maximum(width, height)
        median = float(np.median(short))
        aspect = long / short
        found = []
        for values, mask, text, hint, evidence in (
            (
                short / median,
                short * TINY <= median,
                f"tiny beside the others, whose shorter side has {median:.0f} pixels",
                "are these thumbnails? Enlarged, they look like nothing that will be met in use",
                {"median_short_side": median},
            ),
            (
                1 / aspect,
                aspect >= LONG,
                f"at least {LONG} times as long as wide",
                "a centre crop shows little of them: cut out what matters",
                {"longest_aspect": float(aspect.max())},
            ),
        ):
            rows = np.flatnonzero(mask)
            rows = rows[np.argsort(values[rows], kind="stable")]
            if len(rows):
                found.append(
                    context.about(
                        "size_outliers",
                        rows,
                        text,
                        notes=[f"{width[row]} × {height[row]}" for row in rows],
                        hint=hint,
                        evidence=evidence,
                        decision="review",
                    )
                )
        return found
