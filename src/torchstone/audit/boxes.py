"""Boxes that cannot be right, boxes drawn twice, and annotators who do not agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from torchstone.audit import AuditContext, alike
from torchstone.core.values import Finding
from torchstone.data.findings import count_of, name_a_few

if TYPE_CHECKING:
    from numpy.typing import NDArray

OUTSIDE = 1.0
"""Pixels by which a box may reach out of its picture: conventions differ on whether its corner counts."""

TWICE = 0.9
"""Intersection over union from which two boxes of one annotator on one picture are the same box."""

AGREE = 0.7
"""Intersection over union from which the boxes of two annotators mean the same thing."""

MUCH = 0.9
"""Share of boxes that two annotators should have in common: below it they read the task in different ways."""

AT_ONCE = 1_000_000
"""Pairs of boxes that are compared at a time: a few tens of MB, however many boxes a picture has."""


class Boxes:
    """Sums up the boxes that reading left out, and compares the others with their picture and with each other."""

    requires: ClassVar[tuple[str, ...]] = ()

    def run(self, context: AuditContext) -> list[Finding]:
        found = _degenerate(context)
        if "box_picture" in context.table.columns:
            corners = np.stack([context.column(f"box_{side}") for side in ("x0", "y0", "x1", "y1")], axis=1)
            found += [*_outside(context, corners), *_twice(context, corners), *_agreement(context, corners)]
        return found


def _degenerate(context: AuditContext) -> list[Finding]:
    """What reading reported box by box, in one finding."""
    left_out = [finding for finding in context.findings if finding.check == "boxes"]
    if not left_out:
        return []
    reasons = {item: str(one.evidence.get("reason", one.message)) for one in left_out for item in one.items}
    share = 100 * len(reasons) / (len(reasons) + context.catalog.images)
    named = name_a_few(f"{item} ({reason})" for item, reason in reasons.items())
    return [
        Finding(
            check="boxes",
            severity="warning",
            message=f"{count_of(len(reasons), 'box')} ({share:.1f} %) left out as degenerate: {named}",
            hint="mend or delete them in the annotations",
            items=tuple(reasons),
            decision="drop",
            evidence={"images": len(reasons), "reasons": reasons},
        )
    ]


def _outside(context: AuditContext, corners: NDArray[np.float32]) -> list[Finding]:
    """Boxes that reach out of their picture, the farthest first."""
    width, height = context.column("box_width"), context.column("box_height")
    beyond = np.max([-corners[:, 0], -corners[:, 1], corners[:, 2] - width, corners[:, 3] - height], axis=0)
    rows = np.flatnonzero((beyond > OUTSIDE) & (width > 0) & (height > 0))
    if not len(rows):
        return []
    rows = rows[np.argsort(-beyond[rows], kind="stable")]
    return [
        context.about(
            "boxes",
            rows,
            "of a box that reaches out of its picture",
            notes=[f"by {beyond[row]:.0f} pixels" for row in rows],
            hint="what is outside was left out; was the picture resized after it was annotated?",
            evidence={"farthest": float(beyond[rows[0]])},
            decision="review",
        )
    ]


def _twice(context: AuditContext, corners: NDArray[np.float32]) -> list[Finding]:
    """Boxes that one annotator drew again, with the same label or another one."""
    labels = context.column("label")
    same, other = [], []
    for by_annotator in _pictures(context):
        for rows in by_annotator.values():
            for a, b in zip(*_overlapping(corners[rows], corners[rows], TWICE)[:2], strict=True):
                if a < b:
                    (same if labels[rows[a]] == labels[rows[b]] else other).append((rows[a], rows[b]))
    found = []
    for pairs, text, hint, drops in (
        (same, "drawn twice", "delete the copies: they count twice", True),
        (other, "drawn twice, under two labels", "which of the two is it?", False),
    ):
        if pairs:
            groups = tuple(context.items(pair) for pair in pairs)
            copies = dict.fromkeys(item for group in groups for item in (group[1:] if drops else group))
            found.append(
                Finding(
                    check="boxes",
                    severity="warning" if drops else "error",
                    message=f"{count_of(len(pairs), 'box')} {text}: {name_a_few(map(alike, groups))}",
                    hint=hint,
                    items=tuple(copies),
                    groups=groups,
                    decision="drop" if drops else "review",
                    evidence={"images": len(copies), "pairs": len(pairs)},
                )
            )
    return found


class _Pair(NamedTuple):
    """What two annotators have on the pictures that both annotated."""

    boxes: int
    shared: int
    """Matches, one to one."""
    called_alike: int


def _agreement(context: AuditContext, corners: NDArray[np.float32]) -> list[Finding]:
    """For each two annotators: the share of their boxes that the other has, too (2 · matches / boxes, the F1 score of
    one taken as the truth for the other), and of those the share that has the same label."""
    labels = context.column("label")
    totals: dict[tuple[str, str], _Pair] = {}
    disputed: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for by_annotator in _pictures(context):
        named = sorted((name, rows) for name, rows in by_annotator.items() if name is not None)
        for (first, ours), (second, theirs) in combinations(named, 2):
            matches = [(ours[a], theirs[b]) for a, b in match(corners[ours], corners[theirs], AGREE)]
            different = [(a, b) for a, b in matches if labels[a] != labels[b]]
            names = (first, second)
            before = totals.get(names, _Pair(0, 0, 0))
            after = (len(ours) + len(theirs), len(matches), len(matches) - len(different))
            totals[names] = _Pair(*(old + new for old, new in zip(before, after, strict=True)))
            disputed.setdefault(names, []).extend(different)
    return [_agreed(context, names, pair, disputed[names]) for names, pair in sorted(totals.items())]


def _agreed(context: AuditContext, names: tuple[str, str], pair: _Pair, disputed: list[tuple[int, int]]) -> Finding:
    share = 2 * pair.shared / pair.boxes
    alike = pair.called_alike / pair.shared if pair.shared else 0.0
    classes, labels = context.catalog.classes, context.column("label")
    confused = Counter(" / ".join(sorted(classes[labels[row]] for row in rows)) for rows in disputed)
    most = f"; most disputed: {confused.most_common(1)[0][0]}" if confused else ""
    groups = tuple(context.items(rows) for rows in disputed)
    items = tuple(dict.fromkeys(item for group in groups for item in group))
    return Finding(
        check="boxes",
        severity="info" if share >= MUCH and alike >= MUCH else "warning",
        message=f"annotators {names[0]} and {names[1]} have {100 * share:.1f} % of {pair.boxes:,} boxes in common "
        f"(intersection over union at least {AGREE}), and {100 * alike:.1f} % of those under one label{most}",
        hint="no model is measured more exactly than its annotators agree",
        items=items,
        groups=groups,
        decision="review",
        evidence={
            "annotators": list(names), "boxes": pair.boxes, "matched": pair.shared, "agreement": share,
            "same_label": alike, "images": len(items), "confused": dict(confused.most_common(20)),
        },
    )  # fmt: skip


def match(ours: NDArray[np.floating[Any]], theirs: NDArray[np.floating[Any]], least: float) -> list[tuple[int, int]]:
    """Pairs of rows of two sets of boxes, float[n, 4] and float[m, 4] of (x0, y0, x1, y1): one to one, the largest
    intersection over union first, none below ``least``."""
    rows, columns, overlap = _overlapping(ours, theirs, least)
    pairs = []
    free_ours, free_theirs = set(rows.tolist()), set(columns.tolist())
    for place in np.argsort(-overlap, kind="stable"):
        a, b = int(rows[place]), int(columns[place])
        if a in free_ours and b in free_theirs:
            pairs.append((a, b))
            free_ours.remove(a)
            free_theirs.remove(b)
    return pairs


def iou(ours: NDArray[np.floating[Any]], theirs: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """float64[n, m]: intersection over union of each two boxes."""
    low = np.maximum(ours[:, None, :2], theirs[None, :, :2])
    high = np.minimum(ours[:, None, 2:], theirs[None, :, 2:])
    common = np.prod(np.maximum(0.0, (high - low).astype(np.float64)), axis=2)
    sizes = [np.prod((boxes[:, 2:] - boxes[:, :2]).astype(np.float64), axis=1) for boxes in (ours, theirs)]
    union = sizes[0][:, None] + sizes[1][None, :] - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def _overlapping(
    ours: NDArray[np.floating[Any]], theirs: NDArray[np.floating[Any]], least: float
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """Rows, columns and values of ``iou`` that are at least ``least``, some rows at a time."""
    step = max(1, AT_ONCE // max(1, len(theirs)))
    found = []
    for start in range(0, len(ours), step):
        overlap = iou(ours[start : start + step], theirs)
        rows, columns = np.nonzero(overlap >= least)
        found.append((rows + start, columns, overlap[rows, columns]))
    rows, columns, values = (np.concatenate(column) for column in zip(*found, strict=True))
    return rows, columns, values


def _pictures(context: AuditContext) -> Iterator[dict[str | None, list[int]]]:
    """For each picture with more than one box: annotator → rows."""
    pictures = context.table["box_picture"].to_list()
    annotators = context.table["box_annotator"].to_list()
    rows_of: dict[str, list[int]] = {}
    for row, picture in enumerate(pictures):
        rows_of.setdefault(picture, []).append(row)
    for rows in rows_of.values():
        if len(rows) > 1:
            by_annotator: dict[str | None, list[int]] = {}
            for row in rows:
                by_annotator.setdefault(annotators[row], []).append(row)
            yield by_annotator
