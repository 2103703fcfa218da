"""What must stay together when images are shared out: copies, pictures, pairs that look the same, groups."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from torchstone.core import seeding, tables
from torchstone.core.values import Catalog
from torchstone.data.catalog import SIMILAR

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Edges = tuple[NDArray[np.intp], NDArray[np.intp]]
    """Rows that are joined: the one end of each edge, and the other."""

TOGETHER = ("sha256", "picture", "group")
"""Columns of the catalog: rows with the same value in one of them are one unit."""


@dataclass(frozen=True)
class Units:
    """Rows of a catalog joined where they share pixels, a picture or a group, or are a pair of look-alikes, directly or
    through others."""

    of_row: NDArray[np.intp]
    """The unit of each row."""
    draws: NDArray[np.int64]
    """For each unit, a number from 0 to 2⁶³ that depends on its key and the seed alone."""
    turns: NDArray[np.intp]
    """Place of each unit in the order of the draws."""

    @property
    def count(self) -> int:
        return len(self.draws)

    def largest(self, of_rows: NDArray[Any]) -> NDArray[Any]:
        """For each unit, the largest value among its rows."""
        found = np.full(self.count, of_rows.min(), of_rows.dtype)
        np.maximum.at(found, self.of_row, of_rows)
        return found


def look_alikes(catalog: Catalog, table: Any) -> Edges:
    """Rows of the catalog's ``table`` that ``similar.parquet`` holds for the same picture. They say more than the
    column ``picture``: of a camera that pans, each frame and the next are a pair, while the first and the last, which
    show nothing in common, have different numbers."""
    path = catalog.table.with_name(SIMILAR)
    if not path.exists():
        return np.empty(0, np.intp), np.empty(0, np.intp)
    found, _ = tables.read(path)
    rows = tables.frame({"item": table["item"], "row": np.arange(table.height)})
    for end in ("item_a", "item_b"):
        found = found.join(rows, left_on=end, right_on="item", suffix="_b", maintain_order="left")
    return found["row"].to_numpy().astype(np.intp), found["row_b"].to_numpy().astype(np.intp)


def units(table: Any, seed: int, purpose: str, alike: Edges | None = None) -> Units:
    """The units of a catalog's table, each with its place in an order drawn from ``seed`` and ``purpose``; ``alike``
    are its ``look_alikes``.

    A unit's key is the least name of its groups, or without any the least hash of its pixels: neither the images' names
    nor their order count, and images that join a group leave its key as it is.
    """
    rows = np.arange(table.height)
    codes = {name: _codes(table[name]) for name in TOGETHER if name in table.columns}
    edges = [] if alike is None else [alike]
    for numbers in codes.values():
        there = np.flatnonzero(numbers >= 0)
        _, first, place = np.unique(numbers[there], return_index=True, return_inverse=True)
        edges.append((there, there[first][place]))
    _, of_row = np.unique(connected(len(rows), edges), return_inverse=True)

    least = _least(of_row, codes["sha256"])
    draws = np.fromiter((seeding.seed_of(seed, purpose, key) for key in table["sha256"].gather(least)), np.int64)
    grouped = np.flatnonzero(codes["group"] >= 0)
    if len(grouped):
        inside, of_grouped = np.unique(of_row[grouped], return_inverse=True)
        names = table["group"].gather(grouped[_least(of_grouped, codes["group"][grouped])])
        draws[inside] = [seeding.seed_of(seed, purpose, "group", name) for name in names]
    order = np.lexsort((codes["sha256"][least], draws))
    turns = np.empty(len(order), np.intp)
    turns[order] = np.arange(len(order))
    return Units(of_row=of_row, draws=draws, turns=turns)


def connected(nodes: int, edges: Iterable[Edges]) -> NDArray[np.intp]:
    """For each node the least node that it is connected with. Every round hooks each component that has a neighbour to
    another one, so that their number at least halves (Shiloach and Vishkin, 1982)."""
    ends = list(edges)
    label = np.arange(nodes)
    while True:
        hooked = label.copy()
        for one, other in ends:
            low = np.minimum(label[one], label[other])
            np.minimum.at(hooked, label[one], low)
            np.minimum.at(hooked, label[other], low)
        while (jumped := hooked[hooked]).tobytes() != hooked.tobytes():
            hooked = jumped
        if (hooked == label).all():
            return label
        label = hooked


def _codes(column: Any) -> NDArray[np.int64]:
    """Numbers in the order of the values, -1 for null."""
    return column.rank("dense").cast(int).fill_null(-1).to_numpy()


def _least(of_row: NDArray[np.intp], value: NDArray[np.int64]) -> NDArray[np.intp]:
    """For each unit, its row with the least value."""
    order = np.lexsort((value, of_row))
    _, first = np.unique(of_row[order], return_index=True)
    return order[first]
