"""Labels of a scatter plot stay readable however the points lie."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from torchstone.report.labels import Box, place

AREA = Box(0, 0, 900, 400)
POINTS = st.lists(st.tuples(st.integers(120, 780), st.integers(60, 340)), min_size=1, max_size=8, unique=True)


@settings(deadline=None, max_examples=60)
@given(POINTS)
def test_labels_cover_neither_each_other_nor_a_point(anchors: list[tuple[float, float]]) -> None:
    points = [Box(x - 5, y - 5, x + 5, y + 5) for x, y in anchors]
    boxes = place(anchors, [(90.0, 12.0)] * len(anchors), points, [], AREA)
    for box in boxes:
        assert box.overlap(AREA) == box.area
        assert all(box.overlap(point) == 0 for point in points)
    assert all(one.overlap(other) == 0 for one, other in combinations(boxes, 2))


def test_a_lone_label_stands_beside_its_point() -> None:
    (box,) = place([(100, 100)], [(50, 12)], [], [], AREA)
    assert box == Box(109, 94, 159, 106)


def test_a_label_at_the_edge_turns_inwards() -> None:
    (box,) = place([(890, 100)], [(50, 12)], [], [], AREA)
    assert box.right < 890
