"""The same picture in two parts that must be apart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from torchstone.audit import STRENGTH, AuditContext, alike
from torchstone.core import tables
from torchstone.core.values import Finding, Split
from torchstone.data import units
from torchstone.data.findings import count_of, name_a_few

Parts = Sequence[str | None]
"""The part of each row."""


class Leaks:
    """Looks at the parts that the source brings, and at those of the split. A picture leaks whether its pixels are
    equal in both parts or not, and whether the two have one number in the catalog or are a pair of ``similar.parquet``;
    the items are the images of the weaker part (train before val before test)."""

    requires: ClassVar[tuple[str, ...]] = ()

    def run(self, context: AuditContext) -> list[Finding]:
        found = _between(
            context,
            context.table["part"].to_list(),
            "the source's own parts",
            "accuracies published on these parts are too high; torchstone's split leaves such images out of train",
        )
        if context.split is not None:
            parts = _parts(context, context.split)
            found += _between(context, parts, "the split", "make the split again: delete split.json")
        return found


def _parts(context: AuditContext, split: Split) -> Parts:
    table, _ = tables.read(split.table)
    part_of = dict(zip(table["item"].to_list(), table["part"].to_list(), strict=True))
    return [part_of.get(item) for item in context.table["item"].to_list()]


def _between(context: AuditContext, parts: Parts, where: str, hint: str) -> list[Finding]:
    """One finding for each pair of parts that share pictures."""
    shared: dict[tuple[str, ...], list[list[int]]] = defaultdict(list)
    for rows in _together(context, parts):
        there = {part for row in rows if (part := parts[row]) is not None}
        if len(there) > 1:
            shared[tuple(sorted(there, key=_strength))].append(rows)
    return [_finding(context, parts, names, sets, where, hint) for names, sets in sorted(shared.items())]


def _together(context: AuditContext, parts: Parts) -> list[list[int]]:
    """Rows that show the same picture, joined by the pairs that stand in two parts: those within a part would only make
    chains."""
    known = np.array([part or "" for part in parts])
    one, other = units.look_alikes(context.catalog, context.table)
    apart = (known[one] != known[other]) & (known[one] != "") & (known[other] != "")
    of_picture = context.column("picture")
    _, first, place = np.unique(of_picture, return_index=True, return_inverse=True)
    edges = [(np.arange(len(known)), first[place]), (one[apart], other[apart])]
    root = units.connected(len(known), edges)
    order = np.argsort(root, kind="stable")
    sets = np.split(order, np.flatnonzero(np.diff(root[order])) + 1)
    return [rows.tolist() for rows in sets if len(rows) > 1]


def _finding(
    context: AuditContext, parts: Parts, names: tuple[str, ...], sets: list[list[int]], where: str, hint: str
) -> Finding:
    hashes = context.table["sha256"]
    groups, weaker, identical = [], [], 0
    for unordered in sets:
        rows = sorted(
            (row for row in unordered if parts[row] is not None), key=lambda row: _strength(parts[row]), reverse=True
        )
        strong = {hashes[row] for row in rows if parts[row] == names[-1]}
        below = [row for row in rows if parts[row] != names[-1]]
        identical += any(hashes[row] in strong for row in below)
        groups.append(context.items([rows[0], *below, *(row for row in rows[1:] if row not in below)]))
        weaker += below
    exactly = "" if identical == len(sets) else f", {identical or 'none'} of them pixel by pixel"
    return Finding(
        check="leaks",
        severity="error",
        message=f"{count_of(len(sets), 'picture')} standing in {' and '.join(names)} of {where}{exactly}: "
        f"{name_a_few(map(alike, groups))}",
        hint=hint,
        items=context.items(weaker),
        groups=tuple(groups),
        decision="drop",
        evidence={"parts": list(names), "pictures": len(sets), "identical": identical, "images": len(weaker)},
    )


def _strength(part: str | None) -> tuple[int, str]:
    """The part that keeps its pictures has the largest."""
    return STRENGTH.get(part or "", 0), part or ""
