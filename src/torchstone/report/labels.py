"""Where the labels of a scatter plot go, so that none covers a point, an interval or another label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

STEPS = (9.0, 16.0, 24.0, 34.0, 46.0, 60.0, 78.0, 100.0)
DIRECTIONS = ((1, 0), (1, 1), (1, -1), (-1, 0), (-1, 1), (-1, -1), (0, 1), (0, -1))
"""Preferred first. (1, 0) is to the right of the point, (0, 1) above it."""


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels, y upwards."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: Box) -> float:
        """The common area."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(0.0, width) * max(0.0, height)

    def nearest(self, x: float, y: float) -> tuple[float, float]:
        """The point of the box that is nearest to (x, y)."""
        return min(max(x, self.left), self.right), min(max(y, self.bottom), self.top)

    @property
    def area(self) -> float:
        return (self.right - self.left) * (self.top - self.bottom)


def place(
    anchors: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    obstacles: Sequence[Box],
    lines: Sequence[Box],
    area: Box,
) -> list[Box]:
    """A box for each label, in the order given: the free place nearest to its anchor, and where nothing near is free,
    the one that covers least and that no other anchor is nearer to. ``lines`` (intervals) are thin, and a label may
    cross one when the next free place is far. All in pixels."""
    placed: list[Box] = []
    for (x, y), (width, height) in zip(anchors, sizes, strict=True):
        taken = [*obstacles, *placed]

        def cost(spot: tuple[Box, float], x: float = x, y: float = y, taken: list[Box] = taken) -> float:
            box, distance = spot
            covered = sum(box.overlap(other) for other in taken)
            crossed = sum(box.overlap(line) for line in lines)
            outside = box.area - box.overlap(area)
            own = math.dist(box.nearest(x, y), (x, y))
            nearer = sum(math.dist(box.nearest(*other), other) < own for other in anchors if other != (x, y))
            return distance + 0.6 * crossed + 40 * nearer + 50 * covered + 500 * outside

        spots = [
            (_beside(x, y, width, height, direction, step), step + 0.3 * preference)
            for step, (preference, direction) in product(STEPS, enumerate(DIRECTIONS))
        ]
        placed.append(min(spots, key=cost)[0])
    return placed


def _beside(x: float, y: float, width: float, height: float, direction: tuple[int, int], step: float) -> Box:
    """The box of a label at ``step`` pixels from (x, y)."""
    across, up = direction
    reach = step if 0 in direction else 0.75 * step
    left = x + reach if across > 0 else x - reach - width if across < 0 else x - width / 2
    bottom = y + reach if up > 0 else y - reach - height if up < 0 else y - height / 2
    if across and up:
        bottom -= up * height / 2
    return Box(left, bottom, left + width, bottom + height)
