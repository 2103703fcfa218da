"""What becomes of each image: the findings item by item, and a catalog without the images that only do harm.

Nothing here touches the user's files. A cleaned catalog is a source like any other (``data.readers.saved``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from torchstone.core import files, tables
from torchstone.core.errors import ArtifactError
from torchstone.core.values import Catalog, Finding
from torchstone.data import findings as reported
from torchstone.data.findings import ITEMS_NAMED

if TYPE_CHECKING:
    import polars as pl

MARKS = "marks.parquet"
CLEANED = "cleaned.parquet"

KEEP, REVIEW, DROP = "keep", "review", "drop"
"""The decisions of a cleaned catalog, the later ones overruling the earlier."""

DECIDED = "decided"
"""Key of the header: a digest of the decisions as they were written."""

LAST = "kept, since nothing else would be left of its class"

_MARKS: dict[str, Any] = {
    "finding": int, "check": str, "severity": str, "item": str, "decision": str, "score": float, "suggested": str,
    "reason": str,
}  # fmt: skip
"""The columns of the marks and their types: a table of none has them, too."""


@dataclass(frozen=True)
class Cleaned:
    """A cleaned catalog, and how many images it keeps, wants to be looked at, and leaves out."""

    path: Path
    keep: int
    review: int
    drop: int


def store(findings: Sequence[Finding], out_dir: Path) -> None:
    """Write ``findings.json``, in which findings about many images name the first ``ITEMS_NAMED`` of them, and
    ``marks.parquet``, which has a row for each item of each finding: ``finding`` (its place in findings.json),
    ``check``, ``severity``, ``item``, ``decision`` (drop, review or null), ``score``, ``suggested`` and ``reason``."""
    columns: dict[str, list[Any]] = {name: [] for name in _MARKS}
    for number, finding in enumerate(findings):
        for row in _marks(finding):
            for name, value in zip(columns, (number, finding.check, finding.severity, *row), strict=True):
                columns[name].append(value)
    tables.write(out_dir / MARKS, tables.frame(columns, schema=_MARKS))
    reported.store(out_dir, map(_shortened, findings))


def _marks(finding: Finding) -> Iterator[tuple[str, str | None, float | None, str | None, str]]:
    """Item, decision, score, suggestion and reason for each item of the finding."""
    reasons = finding.evidence.get("reasons", {})
    twins: dict[str, str] = {}
    for group in finding.groups:
        twins.setdefault(group[0], group[-1])
        for item in group[1:]:
            twins.setdefault(item, group[0])
    for place, item in enumerate(finding.items):
        score = finding.scores[place] if finding.scores else None
        suggested = finding.suggested[place] if finding.suggested else None
        seems = f"seems {suggested}" if suggested else None
        detail = reasons.get(item) or seems or twins.get(item) or (None if score is None else f"{score:.4g}")
        reason = finding.check if detail is None else f"{finding.check}: {detail}"
        yield item, finding.decision, score, suggested, reason


def _shortened(finding: Finding) -> Finding:
    """The finding with its first items and groups alone; its evidence keeps the counts."""
    items = finding.items[:ITEMS_NAMED]
    evidence = dict(finding.evidence)
    if len(finding.groups) > ITEMS_NAMED:
        evidence["groups"] = len(finding.groups)
    if "reasons" in evidence:
        evidence["reasons"] = {item: evidence["reasons"][item] for item in items if item in evidence["reasons"]}
    return finding.model_copy(
        update={
            "items": items,
            "scores": finding.scores[:ITEMS_NAMED],
            "suggested": finding.suggested[:ITEMS_NAMED],
            "groups": tuple(group[:ITEMS_NAMED] for group in finding.groups[:ITEMS_NAMED]),
            "evidence": evidence,
        }
    )


def clean(catalog: Catalog, audit_dir: Path) -> Cleaned:
    """Write ``cleaned.parquet`` beside the marks in ``audit_dir``: the catalog's table with a ``decision`` (keep,
    review or drop), a ``reason`` and the ``class_name`` for each row, and a row for each image that reading left out.

    A class that would lose all its images keeps them, for review. Raises an ArtifactError when the marks or the table
    cannot be read, a ArtifactError where a cleaned catalog lies that somebody has edited.
    """
    path = audit_dir / CLEANED
    check_unedited(path)
    table, header = tables.read(catalog.table)
    marks, _ = tables.read(audit_dir / MARKS)
    # Files that were never images are in no catalog and have no decision.
    decisions = _decisions(marks.filter(marks["decision"].is_not_null() | marks["item"].is_in(table["item"])))
    merged = table.join(decisions, on="item", how="full", coalesce=True, maintain_order="left_right")
    merged = _spare_classes(merged.with_columns(merged["decision"].fill_null(KEEP)), catalog)
    numbers = np.arange(len(catalog.classes), dtype=np.int32)
    names = tables.frame({"label": numbers, "class_name": list(catalog.classes)})
    merged = merged.join(names, on="label", how="left", maintain_order="left")
    tables.write(path, merged, {**header, "classes": list(catalog.classes), DECIDED: _digest(merged)})
    return Cleaned(path, *(int((merged["decision"] == decision).sum()) for decision in (KEEP, REVIEW, DROP)))


def check_unedited(path: Path) -> None:
    """Raise a ArtifactError if ``path`` is a cleaned catalog whose decisions are no longer those that were written."""
    if not path.exists():
        return
    table, header = tables.read(path)
    if "decision" not in table.columns or header.get(DECIDED) != _digest(table):
        raise ArtifactError(
            f"'{path}' has been edited since torchstone wrote it, and would be replaced",
            hint="rename it to keep your decisions, or delete it",
        )


def _digest(table: pl.DataFrame) -> str:
    return files.digest([table["item"].to_list(), table["label"].to_list(), table["decision"].to_list()])


def _decisions(marks: pl.DataFrame) -> pl.DataFrame:
    """One row for each item that is marked: its strictest decision and all reasons."""
    strictest: dict[str, str] = {}
    reasons: dict[str, list[str]] = {}
    order = (KEEP, REVIEW, DROP)
    for item, decision, reason in marks.select("item", "decision", "reason").iter_rows():
        strictest[item] = max(strictest.get(item, KEEP), decision or KEEP, key=order.index)
        reasons.setdefault(item, []).append(reason)
    columns = {
        "item": list(strictest),
        "decision": list(strictest.values()),
        "reason": ["; ".join(reasons[item]) for item in strictest],
    }
    return tables.frame(columns, schema=dict.fromkeys(columns, str))


def _spare_classes(table: pl.DataFrame, catalog: Catalog) -> pl.DataFrame:
    """A class none of whose images would be kept keeps all that can be read."""
    left = table["label"].filter(table["decision"] != DROP).unique().to_list()
    lost = set(range(len(catalog.classes))) - set(left)
    if not lost:
        return table
    labels, decisions, reasons = (table[name].to_list() for name in ("label", "decision", "reason"))
    for row, label in enumerate(labels):
        if label in lost:
            decisions[row], reasons[row] = REVIEW, f"{reasons[row]}; {LAST}"
    changed = tables.frame({"decision": decisions, "reason": reasons}, schema={"decision": str, "reason": str})
    return table.with_columns(changed["decision"], changed["reason"])
