"""What is wrong with these images: every check of the registry, each in a file of its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from torchstone.core import registry, tables
from torchstone.core.errors import MissingPackageError
from torchstone.core.values import Catalog, Finding, Severity, Split
from torchstone.data.findings import count_of, name_a_few

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from torchstone.audit.features import Features

__all__ = ["AuditContext", "alike", "audit", "not_compared"]

STRENGTH = {"test": 2, "val": 1}
"""Which part keeps a picture that stands in several: the test part stays what it was published as."""

COMMON = 0.5
"""Share of the images from which on a property is what these images are like, and no defect of some."""


@dataclass(frozen=True)
class AuditContext:
    """What a data check looks at."""

    catalog: Catalog
    findings: Sequence[Finding]
    """What reading and splitting noticed."""
    split: Split | None = None
    features: Features | None = None
    """What a frozen network makes of each image; None where nobody asked for it: checks that need it find nothing."""

    @cached_property
    def table(self) -> Any:
        """The catalog's polars table, one row an image (core.values.Catalog)."""
        return tables.read(self.catalog.table)[0]

    def column(self, name: str) -> NDArray[Any]:
        """A column of the table."""
        return self.table[name].to_numpy()

    def items(self, rows: Sequence[int] | NDArray[np.integer[Any]]) -> tuple[str, ...]:
        """The items of these rows, in their order."""
        return tuple(self.table["item"].gather(np.asarray(rows, np.int64)).to_list())

    @cached_property
    def same_pixels(self) -> list[list[int]]:
        """The rows of each set of images with equal pixels, sets of one left out; in each the one to keep first."""
        return self._shared("sha256")

    @cached_property
    def same_picture(self) -> list[list[int]]:
        """The same for images that show the same picture, with equal pixels or not."""
        return self._shared("picture")

    def _shared(self, name: str) -> list[list[int]]:
        repeated = np.flatnonzero(self.table[name].is_duplicated().to_numpy())
        rows_of: dict[Any, list[int]] = defaultdict(list)
        for row, value in zip(repeated.tolist(), self.table[name].gather(repeated).to_list(), strict=True):
            rows_of[value].append(row)
        return [sorted(rows, key=self._to_keep) for rows in rows_of.values()]

    def _to_keep(self, row: int) -> tuple[int, int, int]:
        """A key by which the best copy of a picture comes first: that of the strongest part, then the largest."""
        part, width, height = (self.table[name][row] for name in ("part", "width", "height"))
        return -STRENGTH.get(part, 0), -width * height, row

    def about(
        self,
        check: str,
        rows: Sequence[int] | NDArray[np.integer[Any]],
        text: str,
        *,
        severity: Severity = "warning",
        notes: Sequence[str] = (),
        evidence: dict[str, Any] | None = None,
        **fields: Any,
    ) -> Finding:
        """A finding on these rows, which stand with the worst first: ``12 images TEXT: a.jpg, b.jpg, …``.

        ``notes`` say something of each row, in brackets; ``evidence`` joins the number of images; ``fields`` are the
        finding's others.
        """
        items = self.items(rows)
        named = [f"{item} ({note})" for item, note in zip(items, notes, strict=True)] if notes else items
        return Finding(
            check=check,
            severity=severity,
            message=f"{count_of(len(items), 'image')} {text}: {name_a_few(named)}",
            items=items,
            evidence={"images": len(items), **(evidence or {})},
            **fields,
        )

    def unusual(
        self,
        check: str,
        values: NDArray[np.floating[Any]],
        mask: NDArray[np.bool_],
        text: str,
        hint: str,
        common: float = COMMON,
    ) -> list[Finding]:
        """A finding on the rows of ``mask``, the smallest of ``values`` (which become the scores) first; one that only
        informs where more than the share ``common`` of all images are like this."""
        rows = np.flatnonzero(mask)
        if not len(rows):
            return []
        if len(rows) > common * self.catalog.images:
            share = len(rows) / self.catalog.images
            message = f"{100 * share:.0f} % of the images are {text}: these seem to be images of that kind"
            evidence = {"images": len(rows)}
            return [Finding(check=check, severity="info", message=message, hint=hint, evidence=evidence)]
        rows = rows[np.argsort(values[rows], kind="stable")]
        scores = tuple(round(float(value), 4) for value in values[rows])
        return [self.about(check, rows, text, hint=hint, scores=scores, decision="review")]


def alike(names: Sequence[str], sign: str = "=") -> str:
    """``a = b = c``, for what shows the same picture; of many the first three, and how many there are."""
    return f" {sign} ".join(names[:3]) + (f" {sign} {len(names) - 3:,} more" if len(names) > 3 else "")


def audit(
    catalog: Catalog, findings: Iterable[Finding], split: Split | None = None, *, features: Features | None = None
) -> list[Finding]:
    """All findings on these images, the worst first, with every item that they are about (``audit.clean.store`` keeps
    them).

    ``findings`` are those of reading and splitting (``data.findings.load``): what they say of single files is summed
    up; the others come back as they are, beside what the checks find. ``features`` (``audit.features.extract``) are for
    the checks that look at what is in the pictures. A check whose packages are not installed is left out, and named.
    """
    context = AuditContext(catalog, tuple(findings), split, features)
    noticed = []
    names = registry.data_checks.names()
    for name in names:
        check = registry.data_checks.get(name)
        missing = registry.missing_packages(check.requires)
        noticed += [_left_out(name, missing)] if missing else check.run(context)
    noticed += [finding for finding in context.findings if finding.check not in names]
    return sorted(noticed, key=lambda finding: finding.grave)


def not_compared(hint: str | None, *, why: str = "") -> Finding:
    """That no network was asked, and so the checks that look at what is in the pictures found nothing."""
    return Finding(
        check="features",
        severity="info",
        message=f"what is in the pictures was not compared{why and f': {why}'}; outliers and wrong labels were not "
        "looked for",
        hint=hint,
    )


def _left_out(name: str, missing: Sequence[str]) -> Finding:
    error = MissingPackageError(f"the check '{name}'", missing)
    return Finding(
        check=name, severity="info", message=error.message, hint=error.hint, evidence={"missing": list(missing)}
    )
