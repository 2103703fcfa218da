"""The page of an audit: one HTML file with every finding, the images it is about, and what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from torchstone.core import files, tables
from torchstone.core.values import SEVERITIES, Catalog, Finding, Severity
from torchstone.report import pictures
from torchstone.report.templates import environment

PICTURES = 48
"""Images shown of a finding without groups."""
GROUPS, GROUP = 12, 4
"""Groups shown of a finding, and images of each."""
BARS = 30
"""Classes of which the page shows the number of images."""

PIXELATED = 64
"""Longest side in pixels up to which an image is enlarged without blur."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """An image with what is said of it. ``uri`` is None where it cannot be shown."""

    item: str
    uri: str | None
    pixelated: bool
    label: str | None
    part: str | None
    size: str
    suggested: str | None
    score: float | None
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class Group:
    """Images to be looked at side by side, and how many more there are at least."""

    images: list[Shown]
    more: int
    kept: str | None
    """The item that a cleaned catalog keeps of them."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A finding with its images: a grid, or groups side by side."""

    finding: Finding
    anchor: str
    title: str
    images: list[Shown]
    groups: list[Group]
    more: int
    """Images, or groups, that are not shown."""
    left_out: list[tuple[str, str]]
    """Item and reason of what cannot be shown."""

    @property
    def headline(self) -> str:
        """The message without the names of items that the page shows."""
        finding = self.finding
        first = next((name for names in (*finding.groups, finding.items) for name in names), None)
        shown = self.images or self.groups or self.left_out
        before, found, _ = finding.message.partition(f": {first}")
        return before if found and shown else finding.message

    @property
    def count(self) -> int | None:
        """Images that it is about."""
        found = self.finding.evidence.get("images")
        return found if isinstance(found, int) else len(self.finding.items) or None


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A class with its number of images, in each part of the source."""

    name: str
    images: int
    share: float
    """Of the largest class, per cent."""


@dataclass(frozen=True, kw_only=True)
class AuditPage:
    """What the template shows."""

    name: str
    root: str
    catalog: Catalog
    sections: list[Section]
    bars: list[Bar]
    parts: list[tuple[str, int]]
    sizes: str
    note: str | None
    cleaned: bool
    command: str | None
    """What writes the cleaned catalog."""

    def of(self, severity: Severity) -> list[Section]:
        return [section for section in self.sections if section.finding.severity == severity]


def write(
    catalog: Catalog, findings: Sequence[Finding], path: Path, *, command: str | None = None, cleaned: bool = False
) -> None:
    """Write the page of these findings (as stored, with their first items). Images that can no longer be read are
    named instead of shown; ``command`` is what writes the cleaned catalog, or with ``cleaned``, what uses it."""
    page = gather(catalog, findings, command=command, cleaned=cleaned)
    files.write_text(path, environment().get_template("audit.html.j2").render(page=page, severities=SEVERITIES))


def gather(
    catalog: Catalog, findings: Sequence[Finding], *, command: str | None = None, cleaned: bool = False
) -> AuditPage:
    """The contents of the page."""
    table, _ = tables.read(catalog.table)
    wanted = list(dict.fromkeys(item for finding in findings for item in _shown(finding)))
    known = table.filter(table["item"].is_in([*wanted, *(item for finding in findings for item in finding.items)]))
    rows = {row["item"]: row for row in known.iter_rows(named=True)}
    uris, note = pictures.uris(catalog, [rows[item] for item in wanted if item in rows])
    ordered = sorted(findings, key=lambda finding: finding.grave)
    dropped = {item for finding in findings if finding.decision == "drop" for item in finding.items}
    sections = [_section(at, finding, catalog, rows, uris, dropped) for at, finding in enumerate(ordered, start=1)]
    parts = table["part"].drop_nulls().value_counts(sort=True)
    return AuditPage(
        name=Path(catalog.root).name or catalog.root,
        root=catalog.root,
        catalog=catalog,
        sections=sections,
        bars=_bars(catalog, table),
        parts=list(parts.iter_rows()),
        sizes=_sizes(table),
        note=note,
        command=command,
        cleaned=cleaned,
    )


def _shown(finding: Finding) -> Iterator[str]:
    """The items of a finding of which the page needs the image."""
    if finding.groups:
        for group in finding.groups[:GROUPS]:
            yield from group[:GROUP]
    else:
        yield from finding.items[:PICTURES]


def _section(
    number: int,
    finding: Finding,
    catalog: Catalog,
    rows: dict[str, dict[str, Any]],
    uris: dict[str, str],
    dropped: set[str],
) -> Section:
    about = {
        item: (
            finding.suggested[place] if finding.suggested else None,
            finding.scores[place] if finding.scores else None,
        )
        for place, item in enumerate(finding.items)
    }
    reasons = finding.evidence.get("reasons", {})

    def one(item: str) -> Shown:
        row = rows[item]
        suggested, score = about.get(item, (None, None))
        return Shown(
            item=item,
            uri=uris.get(item),
            pixelated=max(row["width"], row["height"]) <= PIXELATED,
            label=catalog.classes[row["label"]],
            part=row["part"],
            size=f"{row['width']} × {row['height']}",
            suggested=suggested,
            score=score,
            reason=reasons.get(item),
        )

    groups = [
        Group(
            images=[one(item) for item in group[:GROUP] if item in rows],
            more=max(0, len(group) - GROUP),
            kept=group[0] if finding.decision == "drop" and group[0] not in dropped else None,
        )
        for group in finding.groups[:GROUPS]
    ]
    images = [] if finding.groups else [one(item) for item in finding.items[:PICTURES] if item in rows]
    gone = [(item, str(reasons.get(item, ""))) for item in finding.items if item not in rows and not finding.groups]
    shown, total = (len(groups), finding.evidence.get("groups", len(finding.groups)))
    if not finding.groups:
        shown, total = len(images) + len(gone), finding.evidence.get("images", len(finding.items))
    return Section(
        finding=finding,
        anchor=f"{finding.check}-{number}",
        title=finding.check.replace("_", " ").capitalize(),
        images=images,
        groups=groups,
        more=max(0, int(total) - shown) if isinstance(total, int) else 0,
        left_out=gone,
    )


def _bars(catalog: Catalog, table: Any) -> list[Bar]:
    """The classes by their number of images; of many classes the largest and the smallest."""
    counts = np.bincount(table["label"].to_numpy(), minlength=len(catalog.classes))
    order = sorted(range(len(counts)), key=lambda label: -counts[label])
    if len(order) > BARS:
        order = [*order[: BARS // 2], *order[-(BARS // 2) :]]
    largest = max(1, int(counts.max()))
    return [
        Bar(name=catalog.classes[label], images=int(counts[label]), share=100 * int(counts[label]) / largest)
        for label in order
    ]


def _sizes(table: Any) -> str:
    """Smallest, median and largest shorter side."""
    short = np.minimum(table["width"].to_numpy(), table["height"].to_numpy())
    if short.min() == short.max() and table["width"].n_unique() == table["height"].n_unique() == 1:
        return f"all {table['width'][0]} × {table['height'][0]} pixels"
    return f"shorter side {short.min():,} to {short.max():,} pixels, half of them above {np.median(short):,.0f}"
