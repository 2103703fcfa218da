"""What is wrong with these images: every check of the registry, each in a file of its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torchstone.core import registry, tables
from torchstone.core.values import Catalog, Finding, Severity, Split

__all__ = ["AuditContext", "audit"]

ORDER: dict[Severity, int] = {"error": 0, "warning": 1, "info": 2}


@dataclass(frozen=True)
class AuditContext:
    """What a data check looks at."""

    catalog: Catalog
    findings: Sequence[Finding]
    """What reading and splitting noticed."""
    split: Split | None

    @cached_property
    def table(self) -> Any:
        """The catalog's polars table, one row an image (core.values.Catalog)."""
        return tables.read(self.catalog.table)[0]

    @cached_property
    def same_pixels(self) -> list[list[int]]:
        """The rows of each set of images with equal pixels, sets of one left out."""
        rows_of: dict[str, list[int]] = defaultdict(list)
        for row, sha256 in enumerate(self.table["sha256"].to_list()):
            rows_of[sha256].append(row)
        return [rows for rows in rows_of.values() if len(rows) > 1]


def audit(catalog: Catalog, findings: Iterable[Finding], split: Split | None = None) -> list[Finding]:
    """All findings on these images, the worst first.

    ``findings`` are those of reading and splitting (``data.findings.load``). Findings about single unreadable files are
    summed up; the others come back as they are, beside what the checks find.
    """
    context = AuditContext(catalog, tuple(findings), split)
    names = registry.data_checks.names()
    noticed = [finding for name in names for finding in registry.data_checks.ready(name, "polars").run(context)]
    noticed += [finding for finding in context.findings if finding.check not in names]
    return sorted(noticed, key=lambda finding: ORDER[finding.severity])
