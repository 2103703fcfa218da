"""Boxes: out of the picture, drawn twice, and how far two annotators agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchstone.audit import AuditContext
from torchstone.audit.boxes import AGREE, Boxes, iou, match
from torchstone.core import tables
from torchstone.core.values import Catalog, Finding

CLASSES = ("red cell", "white cell")
Row = tuple[str, int, tuple[float, float, float, float], str | None]
"""Picture, label, corners, annotator."""


def checked(place: Path, rows: list[Row], findings: tuple[Finding, ...] = (), size: int = 100) -> list[Finding]:
    """What the check says of a catalog of these boxes, on pictures of ``size`` × ``size`` pixels."""
    corners = np.array([row[2] for row in rows], np.float32)
    columns: dict[str, Any] = {
        "item": [f"{row[0]}#{number}" for number, row in enumerate(rows)],
        "label": np.array([row[1] for row in rows], np.int32),
        "box_picture": [row[0] for row in rows],
        **{f"box_{name}": corners[:, place] for place, name in enumerate(("x0", "y0", "x1", "y1"))},
        "box_width": np.full(len(rows), size, np.int32),
        "box_height": np.full(len(rows), size, np.int32),
        "box_annotator": [row[3] for row in rows],
    }
    table = place / "catalog.parquet"
    tables.write(table, tables.frame(columns, schema={"box_annotator": str}))
    catalog = Catalog(root="", reader="voc", classes=CLASSES, images=len(rows), fingerprint="", table=table)
    return Boxes().run(AuditContext(catalog, findings))


def test_sound_boxes_have_no_findings(tmp_path: Path) -> None:
    rows: list[Row] = [("a.jpg", 0, (0, 0, 50, 50), None), ("a.jpg", 1, (40, 40, 100, 100), None)]
    assert checked(tmp_path, [*rows, ("b.jpg", 0, (0, 0, 50, 50), None)]) == []


def test_degenerate_boxes_are_summed_up(tmp_path: Path) -> None:
    left_out = tuple(
        Finding(
            check="boxes", severity="warning", message="left out", items=(f"a.jpg#{n}",), evidence={"reason": "no area"}
        )
        for n in range(7, 9)
    )
    (finding,) = checked(tmp_path, [("a.jpg", 0, (0, 0, 50, 50), None)], left_out)
    assert finding.message.startswith("2 boxes (66.7 %) left out as degenerate: a.jpg#7 (no area), a.jpg#8")
    assert (finding.items, finding.decision) == (("a.jpg#7", "a.jpg#8"), "drop")


def test_a_box_that_reaches_out_of_the_picture_is_named_but_not_for_a_pixel(tmp_path: Path) -> None:
    rows: list[Row] = [
        ("a.jpg", 0, (-1, 0, 50, 101), None),
        ("b.jpg", 0, (0, 0, 50, 105), None),
        ("c.jpg", 0, (-40, 0, 50, 50), None),
    ]
    (finding,) = checked(tmp_path, rows)
    assert finding.items == ("c.jpg#2", "b.jpg#1")
    assert "c.jpg#2 (by 40 pixels)" in finding.message


def test_where_the_size_of_the_picture_is_unknown_nothing_is_outside(tmp_path: Path) -> None:
    assert checked(tmp_path, [("a.jpg", 0, (0, 0, 500, 500), None)], size=0) == []


def test_boxes_drawn_twice_are_told_by_their_labels(tmp_path: Path) -> None:
    rows: list[Row] = [
        ("a.jpg", 0, (10, 10, 50, 50), None),
        ("a.jpg", 0, (10, 10, 50, 51), None),
        ("b.jpg", 0, (10, 10, 50, 50), None),
        ("b.jpg", 1, (10, 10, 50, 50), None),
        ("c.jpg", 0, (10, 10, 50, 50), None),
    ]
    same, other = checked(tmp_path, rows)
    assert (same.items, same.groups, same.decision) == (("a.jpg#1",), (("a.jpg#0", "a.jpg#1"),), "drop")
    assert (other.items, other.severity, other.decision) == (("b.jpg#2", "b.jpg#3"), "error", "review")


def test_the_agreement_of_two_annotators_is_that_of_the_f1_score(tmp_path: Path) -> None:
    rows: list[Row] = [
        ("a.jpg", 0, (0, 0, 20, 20), "ann"),
        ("a.jpg", 0, (1, 0, 21, 20), "bob"),  # the same: 19 / 21 in common
        ("a.jpg", 0, (40, 40, 60, 60), "ann"),
        ("a.jpg", 1, (40, 40, 60, 60), "bob"),  # the same, under another label
        ("a.jpg", 0, (70, 70, 90, 90), "ann"),  # bob did not see it
        ("b.jpg", 0, (0, 0, 20, 20), "ann"),
        ("b.jpg", 0, (10, 0, 30, 20), "bob"),  # a third in common is not the same
        ("c.jpg", 0, (0, 0, 20, 20), "ann"),  # bob did not annotate this picture
    ]
    (finding,) = checked(tmp_path, rows)
    assert finding.severity == "warning"
    assert finding.evidence["boxes"] == 7
    assert finding.evidence["matched"] == 2
    assert finding.evidence["agreement"] == pytest.approx(2 * 2 / 7)
    assert finding.evidence["same_label"] == pytest.approx(1 / 2)
    assert finding.evidence["confused"] == {"red cell / white cell": 1}
    assert finding.groups == (("a.jpg#2", "a.jpg#3"),)
    assert "57.1 % of 7 boxes" in finding.message


def test_annotators_who_agree_are_reported_without_a_warning(tmp_path: Path) -> None:
    rows: list[Row] = [("a.jpg", 0, (0, 0, 20, 20), who) for who in ("ann", "bob", "eve")]
    findings = checked(tmp_path, rows)
    assert {finding.severity for finding in findings} == {"info"}
    names = [finding.evidence["annotators"] for finding in findings]
    assert names == [["ann", "bob"], ["ann", "eve"], ["bob", "eve"]]


def test_the_better_fit_is_matched_first() -> None:
    ours = np.array([[0, 0, 10, 10], [0, 0, 10, 9]], float)
    theirs = np.array([[0, 0, 10, 9]], float)
    assert match(ours, theirs, AGREE) == [(1, 0)]


BOXES = st.lists(
    st.tuples(*[st.integers(0, 30)] * 2, *[st.integers(1, 30)] * 2).map(
        lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
    ),
    min_size=1,
    max_size=8,
)


@given(BOXES, BOXES)
def test_the_overlap_is_that_of_the_pixels_and_matches_are_one_to_one(ours: list[Any], theirs: list[Any]) -> None:
    found = iou(np.array(ours, float), np.array(theirs, float))
    for row, first in enumerate(ours):
        for column, second in enumerate(theirs):
            a, b = (np.zeros((70, 70), bool) for _ in range(2))
            for mask, (x0, y0, x1, y1) in ((a, first), (b, second)):
                mask[y0:y1, x0:x1] = True
            assert found[row, column] == pytest.approx((a & b).sum() / (a | b).sum())
    pairs = match(np.array(ours, float), np.array(theirs, float), 0.3)
    assert len({a for a, _ in pairs}) == len({b for _, b in pairs}) == len(pairs)
    assert all(found[a, b] >= 0.3 for a, b in pairs)
    unmatched = [
        (a, b)
        for a in set(range(len(ours))) - {a for a, _ in pairs}
        for b in set(range(len(theirs))) - {b for _, b in pairs}
    ]
    assert all(found[a, b] < 0.3 for a, b in unmatched), "two boxes that fit were left without a partner"
