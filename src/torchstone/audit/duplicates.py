"""The same picture more than once."""

from __future__ import annotations

from typing import ClassVar

from torchstone.audit import AuditContext
from torchstone.core.values import Finding
from torchstone.data.findings import ITEMS_NAMED, count_of, name_a_few


class Duplicates:
    """Images whose decoded pixels are equal, however their files were encoded."""

    requires: ClassVar[tuple[str, ...]] = ()

    def run(self, context: AuditContext) -> list[Finding]:
        if not context.same_pixels:
            return []
        items = context.table["item"].to_list()
        copies = sum(len(rows) - 1 for rows in context.same_pixels)
        share = 100 * copies / context.catalog.images
        pairs = [" = ".join(items[row] for row in rows) for rows in context.same_pixels]
        return [
            Finding(
                check="duplicates",
                severity="warning",
                message=f"{count_of(copies, 'image')} ({share:.1f} %) repeating another one pixel by pixel: "
                f"{name_a_few(pairs)}",
                hint="delete the copies: they count twice in training and in every accuracy; the split keeps them "
                "together, so none stands in two parts",
                items=tuple(items[row] for rows in context.same_pixels for row in rows)[:ITEMS_NAMED],
                evidence={"copies": copies, "pictures": len(context.same_pixels)},
            )
        ]
