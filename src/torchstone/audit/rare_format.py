"""A few files of another format than all the others: screenshots, placeholders, what a website sent instead."""

from __future__ import annotations

from collections import defaultdict
from pathlib import PurePosixPath
from typing import ClassVar

from torchstone.audit import AuditContext
from torchstone.core.values import Finding
from torchstone.data.findings import ITEMS_NAMED, count_of, name_a_few

ONE_OF = 100
"""A format is rare when it makes up less than one image of this many."""

SAME = {".jpeg": ".jpg", ".jpe": ".jpg", ".jfif": ".jpg", ".tiff": ".tif"}


class RareFormat:
    """Goes by the suffix of the file."""

    requires: ClassVar[tuple[str, ...]] = ()

    def run(self, context: AuditContext) -> list[Finding]:
        items_of: dict[str, list[str]] = defaultdict(list)
        for item in context.table["item"].to_list():
            suffix = PurePosixPath(item).suffix.lower()
            items_of[SAME.get(suffix, suffix)].append(item)
        return [
            Finding(
                check="rare_format",
                severity="info",
                message=f"{count_of(len(items), 'image')} in a format that is rare here, '{suffix}': "
                f"{name_a_few(items)}",
                hint="look at them: they often come from elsewhere, and show a screenshot or a placeholder",
                items=tuple(items[:ITEMS_NAMED]),
                evidence={"suffix": suffix, "images": len(items)},
            )
            for suffix, items in sorted(items_of.items())
            if len(items) * ONE_OF < context.catalog.images
        ]
