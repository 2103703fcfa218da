"""What stands beneath the table of a verdict: the other metrics, the 99 % rule, and the slices that lose most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torchstone.cli._tables import chain_cell, is_narrow
from torchstone.core.values import METRICS
from torchstone.core.verdict import CandidateVerdict, MetricResult, SliceResult, Verdict
from torchstone.judge.slices import LEAST
from torchstone.report import wording

if TYPE_CHECKING:
    from torchstone.judge.external import EvidenceRow, EvidenceVerdict

KEEPS = {"proven": "yes", "refuted": "no", "open": "open"}
SHOWN = 3
"""Slices of a column: those that lose most."""


def margin(found: Verdict | EvidenceVerdict) -> str:
    """The margin, what it is about, and by which procedure."""
    of = "" if found.budget.metric == "top1" else f" of {METRICS[found.budget.metric]}"
    how = ", levels split by Holm" if found.procedure == "holm" else ""
    return f"margin {found.budget.max_drop:g} points{of}{how}"


def beside(found: Verdict, out: Any) -> None:
    """A second table, of what met the test set: how much worse it is in each metric, and whether it keeps 99 % of the
    baseline's accuracy; then what was asked for by column."""
    from rich.table import Table

    tested = [row for row in found.rows[1:] if row.outcome != "not tested" and row.accuracy is not None]
    if not tested:
        return
    narrow = is_narrow(out.width)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1 if narrow else 2, 0, 0))
    table.add_column("points worse\n(at most)" if narrow else "points worse (at most)", overflow="fold")
    for title in METRICS.values():
        table.add_column(title.replace(" ", "\n") if narrow else title, justify="right", no_wrap=True)
    table.add_column("keeps\n99 %" if narrow else "keeps 99 %", justify="right", no_wrap=True)
    if found.procedure == "holm":
        table.add_column("level", justify="right", no_wrap=True)
    for row in tested:
        assert row.accuracy is not None
        by_name = {one.name: one for one in row.metrics}
        cells = [bounded(by_name.get(name)) for name in METRICS]
        cells = [cell.replace(" (", "\n(") if narrow else cell for cell in cells]
        level = [f"{100 * row.level:.4g} %"] if found.procedure == "holm" else []
        table.add_row(chain_cell(row.name, narrow=narrow), *cells, KEEPS[row.accuracy.keeps_99], *level)
    out.print()
    out.print(table)
    by_column(found.slices, tested, out)


def by_column(columns: Sequence[str], tested: Sequence[CandidateVerdict | EvidenceRow], out: Any) -> None:
    """Of each column that was asked for, where those that met the test set lose most."""
    for column in columns:
        out.print(f"\nby {column}, of at least {LEAST} test images each:", highlight=False, markup=False)
        for row in tested:
            out.print(f"  {row.name}: {worst(row, column)}", highlight=False, markup=False)


def worst(row: CandidateVerdict | EvidenceRow, column: str) -> str:
    """The slices of a column that lose most, with the bounds that hold for all of its slices together."""
    found = [one for one in row.slices if one.column == column]
    if not found:
        return f"no value of '{column}' has as many"
    more = f"; {len(found) - SHOWN} more in --json" if len(found) > SHOWN else ""
    return "; ".join(map(_of_slice, found[:SHOWN])) + more + _left_out(row, found)


def _left_out(row: CandidateVerdict | EvidenceRow, found: Sequence[SliceResult]) -> str:
    assert row.accuracy is not None  # who has slices has met the test set
    rest = row.accuracy.images - sum(one.images for one in found)
    return f"; {rest:,} images have rarer values" if rest else ""


def _of_slice(one: SliceResult) -> str:
    return f"'{one.value}' {wording.change(one.drop, one.drop_upper, 'points')} of {one.images:,} images"


def bounded(one: MetricResult | None) -> str:
    """How much worse, and at most how much."""
    if one is None:
        return "—"
    return f"{one.difference:.2f}" + (f" ({wording.at_most(one.upper)})" if one.upper is not None else "")
