"""What the verbs of ``torchstone data`` print: for people on stdout, or JSON for machines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torchstone.cli._answers import print_json, stdout
from torchstone.core.values import PARTS, Split
from torchstone.data import findings
from torchstone.data.catalog import PARTS as SETTLED
from torchstone.data.split import CHECK

if TYPE_CHECKING:
    from torchstone.data.diff import Difference, Version

SHORT = 12
"""Digits of a fingerprint that people see."""

NAMED = 3
"""Images of each kind that people see by name; ``--json`` has them all."""


def difference(found: Difference, json: bool) -> int:
    """Counts and names; 0 for the same images under the same labels, 1 where anything differs."""
    code = 1 if found.rows.height else 0
    if json:
        versions = {"before": _described(found.before), "after": _described(found.after)}
        print_json({**versions, "counts": found.counts, "changes": found.rows.to_dicts(), "exit_code": code})
        return code
    for name, version in (("A", found.before), ("B", found.after)):
        _say(
            f"{name}  {version.name}: {findings.count_of(version.table.height, 'image')}, "
            f"{findings.count_of(len(version.classes), 'class')}, fingerprint {version.fingerprint[:SHORT]}"
        )
    if not code:
        _say("the same images under the same labels")
    for kind, count in found.counts.items():
        if count:
            rows = found.rows.filter(found.rows["change"] == kind)
            named = ", ".join(_told(row) for row in rows.head(NAMED).to_dicts())
            rest = f" and {count - NAMED:,} more" if count > NAMED else ""
            _say(f"{kind:10} {count:>9,}  {named}{rest}")
    return code


def split(made: Split, json: bool) -> int:
    """How many images are in each part, and where it is written."""
    directory = made.table.parent
    noticed = [one for one in findings.load(directory) if one.severity != "info" or one.check in (CHECK, SETTLED)]
    if json:
        print_json({**made.model_dump(mode="json"), "findings": [one.model_dump(mode="json") for one in noticed]})
        return 0
    _say(", ".join(f"{part} {made.sizes[part]:,}" for part in PARTS))
    for finding in noticed:
        _say(f"{finding.severity}: {finding.message}")
    _say(f"fingerprint {made.fingerprint[:SHORT]}, of test alone {made.test_fingerprint[:SHORT]}")
    _say(f"split    {made.table}")
    return 0


def _told(row: dict[str, Any]) -> str:
    """``a.jpg``, ``a.jpg → b.jpg``, ``a.jpg (cat → dog)``: what differs of one image."""
    items = [row["item_before"], row["item_after"]]
    named = items[0] if items[0] == items[1] else " → ".join(item for item in items if item is not None)
    if None in items:
        return named
    pairs = [(row[f"{name}_before"], row[f"{name}_after"]) for name in ("class", "part")]
    turned = [f"{was or 'no part'} → {now or 'no part'}" for was, now in pairs if was != now]
    return f"{named} ({', '.join(turned)})" if turned else named


def _described(version: Version) -> dict[str, Any]:
    return {
        "name": version.name,
        "images": version.table.height,
        "classes": list(version.classes),
        "fingerprint": version.fingerprint,
    }


def _say(line: str) -> None:
    stdout().print(line, markup=False, highlight=False, soft_wrap=True)
