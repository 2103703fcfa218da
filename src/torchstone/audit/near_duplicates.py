"""The same picture more than once, with other pixels: compressed again, resized, trimmed, mirrored, brightened."""

from __future__ import annotations

from typing import ClassVar

from torchstone.audit import AuditContext, alike
from torchstone.core.values import Finding
from torchstone.data.findings import count_of, name_a_few


class NearDuplicates:
    """Goes by the catalog's ``picture`` numbers (``data.similar``). Of images with equal pixels one stands for all:
    those are duplicates. The largest sets of copies come first."""

    requires: ClassVar[tuple[str, ...]] = ()

    def run(self, context: AuditContext) -> list[Finding]:
        sets = sorted((_different(context, rows) for rows in context.same_picture), key=lambda rows: -len(rows))
        groups = tuple(context.items(rows) for rows in sets if len(rows) > 1)
        if not groups:
            return []
        copies = tuple(item for group in groups for item in group[1:])
        share = 100 * len(copies) / context.catalog.images
        return [
            Finding(
                check="near_duplicates",
                severity="warning",
                message=f"{count_of(len(copies), 'image')} ({share:.1f} %) showing the picture of another one, "
                f"with other pixels: {name_a_few(alike(group, '≈') for group in groups)}",
                hint="look at them side by side; copies count twice, and frames of one scene tell less than they "
                "seem to; the split keeps them together",
                items=copies,
                groups=groups,
                decision="review",
                evidence={"images": len(copies), "pictures": len(groups)},
            )
        ]


def _different(context: AuditContext, rows: list[int]) -> list[int]:
    """The first row of each different image among ``rows``."""
    hashes = context.table["sha256"]
    first: dict[str, int] = {}
    for row in rows:
        first.setdefault(hashes[row], row)
    return list(first.values())
