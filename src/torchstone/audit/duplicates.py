"""The same picture more than once, pixel by pixel."""

from __future__ import annotations

from typing import ClassVar

from torchstone.audit import AuditContext, alike
from torchstone.core.values import Finding
from torchstone.data.findings import count_of, name_a_few


class Duplicates:
    """Images whose decoded pixels are equal, however their files were encoded. The items are the copies; of each
    picture one is kept, in the strongest part that has it."""

    requires: ClassVar[tuple[str, ...]] = ()

    def run(self, context: AuditContext) -> list[Finding]:
        if not context.same_pixels:
            return []
        groups = tuple(context.items(rows) for rows in context.same_pixels)
        copies = tuple(item for group in groups for item in group[1:])
        share = 100 * len(copies) / context.catalog.images
        return [
            Finding(
                check="duplicates",
                severity="warning",
                message=f"{count_of(len(copies), 'image')} ({share:.1f} %) repeating another one pixel by pixel: "
                f"{name_a_few(map(alike, groups))}",
                hint="delete the copies: they count twice in training and in every accuracy; the split keeps them "
                "together, so none stands in two parts",
                items=copies,
                groups=groups,
                decision="drop",
                evidence={"images": len(copies), "pictures": len(groups)},
            )
        ]
