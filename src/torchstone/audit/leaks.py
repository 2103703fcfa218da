"""The same picture in two parts that must be apart."""

from __future__ import annotations

from collections import defaultdict
from typing import ClassVar

from torchstone.audit import AuditContext
from torchstone.core import tables
from torchstone.core.values import Finding, Split
from torchstone.data.findings import ITEMS_NAMED, count_of, name_a_few


class Leaks:
    """Looks at the parts that the source brings, and at those of the split."""

    requires: ClassVar[tuple[str, ...]] = ()

    def run(self, context: AuditContext) -> list[Finding]:
        items = context.table["item"].to_list()
        own = dict(zip(items, context.table["part"].to_list(), strict=True))
        found = _between(
            context,
            own,
            "the source's own parts",
            "accuracies published on these parts are too high; torchstone's split leaves such images out of train",
        )
        if context.split is not None:
            found += _between(context, _parts(context.split), "the split", "make the split again: delete split.json")
        return found


def _parts(split: Split) -> dict[str, str]:
    """Item → part."""
    table, _ = tables.read(split.table)
    return dict(zip(table["item"].to_list(), table["part"].to_list(), strict=True))


def _between(
    context: AuditContext, part_of: dict[str, str | None] | dict[str, str], where: str, hint: str
) -> list[Finding]:
    """One finding for each pair of parts that share pictures."""
    items = context.table["item"].to_list()
    shared: dict[tuple[str, ...], list[list[str]]] = defaultdict(list)
    for rows in context.same_pixels:
        parts = {part for row in rows if (part := part_of.get(items[row])) is not None}
        if len(parts) > 1:
            shared[tuple(sorted(parts, reverse=True))].append([items[row] for row in rows])
    return [
        Finding(
            check="leaks",
            severity="error",
            message=f"{count_of(len(groups), 'picture')} standing in {' and '.join(parts)} of {where}: "
            f"{name_a_few(' = '.join(group) for group in groups)}",
            hint=hint,
            items=tuple(item for group in groups for item in group)[:ITEMS_NAMED],
            evidence={"parts": list(parts), "pictures": len(groups)},
        )
        for parts, groups in sorted(shared.items())
    ]
