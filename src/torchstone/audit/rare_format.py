"""A few files of another format than all the others: screenshots, placeholders, what a website sent instead."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

import numpy as np

from torchstone.audit import AuditContext
from torchstone.core.values import Finding

ONE_OF = 100
"""A format is rare when it makes up less than one image of this many."""


class RareFormat:
    """Goes by the content of the file."""

    requires: ClassVar[tuple[str, ...]] = ()

    def run(self, context: AuditContext) -> list[Finding]:
        formats = context.table["format"]
        counts = Counter(formats.to_list())
        rare = sorted(name for name, count in counts.items() if count * ONE_OF < context.catalog.images)
        return [
            context.about(
                "rare_format",
                np.flatnonzero((formats == name).to_numpy()),
                f"in a format that is rare here, {name}",
                severity="info",
                hint="look at them: they often come from elsewhere, and show a screenshot or a placeholder",
                evidence={"format": name},
                decision="review",
            )
            for name in rare
        ]
