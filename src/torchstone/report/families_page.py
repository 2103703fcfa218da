"""The page that compares the families of networks on this machine."""

from __future__ import annotations

from collections.abc import Sequence

from torchstone.core import machine
from torchstone.evaluate.relative import Options, Row
from torchstone.models.families import FAMILIES
from torchstone.report.families_figure import Dot, compared
from torchstone.report.templates import environment


def render(rows: Sequence[Row], measured: Options | None) -> str:
    """The whole HTML document. Without a measurement it compares by operations."""
    if measured:
        unit = f"ms for one image, {measured.runtime}, {measured.precision}"
        costs = [row.speed.ms if row.speed else 0.0 for row in rows]
    else:
        unit, costs = "million MACs", [row.member.macs / 1e6 for row in rows]
    dots = [
        Dot(name=row.member.name, family=row.member.family, cost=cost, top1=row.member.top1)
        for row, cost in zip(rows, costs, strict=True)
        if row.member.top1 is not None and cost > 0
    ]
    return (
        environment()
        .get_template("families.html.j2")
        .render(
            rows=rows,
            families=[one for one in FAMILIES if any(row.member.family == one.name for row in rows)],
            measured=measured,
            sources=_sources(rows),
            unit=unit,
            wide=compared(dots, unit) if len(dots) > 1 else None,
            narrow=compared(dots, unit, narrow=True) if len(dots) > 1 else None,
            cpu=machine.cpu_name(),
            versions=machine.versions(),
            fastest=min(costs, default=0.0),
            slowest=max(costs, default=0.0),
            costs=costs,
        )
    )


def _sources(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Who published the accuracies: the families of each source."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if row.member.top1_source and row.member.family not in found.setdefault(row.member.top1_source, []):
            found[row.member.top1_source].append(row.member.family)
    return found
