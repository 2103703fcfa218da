"""The same picture under two labels."""

from __future__ import annotations

from typing import ClassVar

from torchstone.audit import AuditContext
from torchstone.core.values import Finding
from torchstone.data.findings import ITEMS_NAMED, count_of, name_a_few


class ConflictingLabels:
    """At most one of the labels can be right, and no model can get all of them right."""

    requires: ClassVar[tuple[str, ...]] = ()

    def run(self, context: AuditContext) -> list[Finding]:
        items, labels = (context.table[name].to_list() for name in ("item", "label"))
        conflicts = [rows for rows in context.same_pixels if len({labels[row] for row in rows}) > 1]
        if not conflicts:
            return []
        classes = context.catalog.classes
        named = [" = ".join(f"{items[row]} ({classes[labels[row]]})" for row in rows) for rows in conflicts]
        return [
            Finding(
                check="conflicting_labels",
                severity="error",
                message=f"{count_of(len(conflicts), 'picture')} standing under two labels: {name_a_few(named)}",
                hint="look at them, and delete the files that lie in the wrong class",
                items=tuple(items[row] for rows in conflicts for row in rows)[:ITEMS_NAMED],
                evidence={"pictures": len(conflicts), "images": sum(map(len, conflicts))},
            )
        ]
