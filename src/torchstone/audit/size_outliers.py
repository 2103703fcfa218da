"""Images that are tiny beside the others, or long and narrow."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from torchstone.audit import AuditContext
from torchstone.core.values import Finding
from torchstone.data.findings import ITEMS_NAMED, count_of, name_a_few

TINY = 4
"""Times smaller than the median image's shorter side: thumbnails among photographs."""

LONG = 4
"""Longer side to shorter side: a centre crop shows a quarter of such an image at most."""


class SizeOutliers:
    """Looks at the pixels of each image's sides, upright."""

    requires: ClassVar[tuple[str, ...]] = ()

    def run(self, context: AuditContext) -> list[Finding]:
        items = context.table["item"].to_list()
        width, height = context.table["width"].to_numpy(), context.table["height"].to_numpy()
        short, long = np.minimum(width, height), np.maximum(width, height)
        median = float(np.median(short))
        sizes = [f"{item} ({w} × {h})" for item, w, h in zip(items, width, height, strict=True)]
        found = []
        for rows, text, hint, evidence in (
            (
                np.flatnonzero(short * TINY <= median),
                f"tiny beside the others, whose shorter side has {median:.0f} pixels",
                "are these thumbnails? Enlarged, they look like nothing that will be met in use",
                {"median_short_side": median},
            ),
            (
                np.flatnonzero(long >= LONG * short),
                f"at least {LONG} times as long as wide",
                "a centre crop shows little of them: cut out what matters",
                {"longest_aspect": float((long / short).max())},
            ),
        ):
            if len(rows):
                found.append(
                    Finding(
                        check="size_outliers",
                        severity="warning",
                        message=f"{count_of(len(rows), 'image')} {text}: {name_a_few(sizes[row] for row in rows)}",
                        hint=hint,
                        items=tuple(items[row] for row in rows[:ITEMS_NAMED]),
                        evidence={"images": len(rows), **evidence},
                    )
                )
        return found
