"""The same picture under two labels."""

from __future__ import annotations

from typing import ClassVar

from torchstone.audit import AuditContext, alike
from torchstone.core.values import Decision, Finding, Severity
from torchstone.data.findings import count_of, name_a_few


class ConflictingLabels:
    """At most one of the labels can be right, and no model can get all of them right. Pictures with equal pixels are
    errors; of those that only look alike some may rightly be called two things."""

    requires: ClassVar[tuple[str, ...]] = ()

    def run(self, context: AuditContext) -> list[Finding]:
        labels = context.table["label"].to_list()
        exact = [rows for rows in context.same_pixels if len({labels[row] for row in rows}) > 1]
        known = {row for rows in exact for row in rows}
        different = (rows for rows in context.same_picture if len({labels[row] for row in rows}) > 1)
        near = [rows for rows in different if not known.issuperset(rows)]
        found = []
        if exact:
            hint = "look at them, and delete the files that lie in the wrong class"
            found.append(_finding(context, exact, "standing under two labels", hint, "error", "drop"))
        if near:
            hint = "look at them side by side: is it one picture, and what does it show?"
            text = "standing under two labels with other pixels"
            found.append(_finding(context, near, text, hint, "warning", "review"))
        return found


def _finding(
    context: AuditContext, sets: list[list[int]], text: str, hint: str, severity: Severity, decision: Decision
) -> Finding:
    labels, classes = context.table["label"], context.catalog.classes
    groups = tuple(context.items(rows) for rows in sets)
    named = (
        alike([f"{item} ({classes[labels[row]]})" for item, row in zip(group, rows, strict=True)])
        for group, rows in zip(groups, sets, strict=True)
    )
    items = tuple(item for group in groups for item in group)
    return Finding(
        check="conflicting_labels",
        severity=severity,
        message=f"{count_of(len(sets), 'picture')} {text}: {name_a_few(named)}",
        hint=hint,
        items=items,
        groups=groups,
        decision=decision,
        evidence={"pictures": len(sets), "images": len(items)},
    )
