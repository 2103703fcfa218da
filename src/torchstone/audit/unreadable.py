"""Files that were left out because they cannot be decoded."""

from __future__ import annotations

from typing import ClassVar

from torchstone.audit import AuditContext
from torchstone.core.values import Finding
from torchstone.data.findings import count_of, name_a_few


class Unreadable:
    """Sums up what reading reported file by file."""

    requires: ClassVar[tuple[str, ...]] = ()

    def run(self, context: AuditContext) -> list[Finding]:
        left_out = [finding for finding in context.findings if finding.check == "unreadable"]
        if not left_out:
            return []
        reasons = {item: str(finding.evidence.get("reason", "")) for finding in left_out for item in finding.items}
        share = 100 * len(left_out) / (len(left_out) + context.catalog.images)
        named = name_a_few(f"{item} ({reason})" for item, reason in reasons.items())
        return [
            Finding(
                check="unreadable",
                severity="warning",
                message=f"{count_of(len(left_out), 'image')} ({share:.1f} %) left out as unusable: {named}",
                hint="mend or delete these files",
                items=tuple(reasons),
                decision="drop",
                evidence={"images": len(left_out), "reasons": reasons},
            )
        ]
