"""What became of the images between two versions of a data set, told by their pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from torchstone.core import tables
from torchstone.core.errors import ArtifactError
from torchstone.data.catalog import fingerprint

if TYPE_CHECKING:
    from numpy.typing import NDArray

SAME = "same"
ROUNDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (SAME, ("item", "sha256", "class", "part")),
    ("moved", ("item", "sha256", "class")),
    ("relabelled", ("item", "sha256")),
    ("moved", ("sha256", "class")),
    ("relabelled", ("sha256",)),
    ("changed", ("item",)),
)
"""What a pair of images is that agree in these columns. Each round pairs what the rounds before it left over; an image
that was put into another class folder is relabelled, though its item is another one, too."""

KINDS = ("added", "removed", "relabelled", "changed", "moved")
COLUMNS = ("item", "class", "part")
"""What the difference tells of an image, before and after."""


@dataclass(frozen=True)
class Version:
    """The images of one version of a data set."""

    name: str
    table: Any
    """polars: ``item``, ``class``, ``sha256``, ``part``, sorted by item."""
    classes: tuple[str, ...]
    fingerprint: str
    """As in ``values.Catalog``."""


@dataclass(frozen=True)
class Difference:
    """How one version became another."""

    before: Version
    after: Version
    rows: Any
    """polars, one row for each image that differs: ``change`` (one of ``KINDS``), and ``item``, ``class`` and ``part``
    of each version as ``item_before``, ``item_after``, …: null before what was added and after what was removed."""

    @property
    def counts(self) -> dict[str, int]:
        found = self.rows["change"].to_list()
        return {kind: found.count(kind) for kind in KINDS}


def version(name: str, table: Any, classes: Sequence[str]) -> Version:
    """A version from the table of a catalog (``values.Catalog``); of a cleaned one, without the rows that it drops."""
    if lacking := {"item", "label", "sha256"} - set(table.columns):
        raise ArtifactError(
            f"'{name}' is not a catalog: it has no column {', '.join(sorted(lacking))}", hint="name a catalog.parquet"
        )
    if "decision" in table.columns:
        table = table.filter(table["decision"].fill_null("") != "drop")
    labels = table["label"].to_list()
    columns = {
        "item": table["item"],
        "class": [classes[label] for label in labels],
        "sha256": table["sha256"],
        "part": table["part"] if "part" in table.columns else [None] * len(labels),
    }
    return Version(
        name=name,
        table=tables.frame(columns, schema=dict.fromkeys(columns, str)).sort("item"),
        classes=tuple(classes),
        fingerprint=fingerprint(table["sha256"], labels),
    )


def compare(before: Version, after: Version) -> Difference:
    """Every image of both versions is told of once. Copies of the same pixels are paired in the order of their names,
    those that kept their name first."""
    codes_before, codes_after = _codes(before.table, after.table)
    left, right = np.arange(before.table.height), np.arange(after.table.height)
    found = []
    for kind, columns in ROUNDS:
        keys = _keys([codes_before[name][left] for name in columns], [codes_after[name][right] for name in columns])
        ours, theirs = _pairs(*keys)
        if kind != SAME:
            found.append(_rows(kind, before.table[left[ours]], after.table[right[theirs]]))
        left, right = np.delete(left, ours), np.delete(right, theirs)
    found.append(_rows("removed", before.table[left], None))
    found.append(_rows("added", None, after.table[right]))
    rows = found[0]
    for more in found[1:]:
        rows = rows.vstack(more)
    return Difference(before, after, rows.sort("item_after", "item_before", nulls_last=True))


def _rows(kind: str, before: Any, after: Any) -> Any:
    """Rows of ``Difference.rows``."""
    count = after.height if before is None else before.height
    columns: dict[str, Any] = {"change": [kind] * count}
    for name in COLUMNS:
        columns[f"{name}_before"] = [None] * count if before is None else before[name]
        columns[f"{name}_after"] = [None] * count if after is None else after[name]
    return tables.frame(columns, schema=dict.fromkeys(columns, str))


def _codes(before: Any, after: Any) -> tuple[dict[str, NDArray[np.int64]], dict[str, NDArray[np.int64]]]:
    """For each column, numbers that are equal where the values of the two tables are."""
    both = before.vstack(after)
    codes = {name: both[name].rank("dense").cast(int).fill_null(0).to_numpy() for name in before.columns}
    cut = before.height
    return {name: one[:cut] for name, one in codes.items()}, {name: one[cut:] for name, one in codes.items()}


def _keys(
    before: Sequence[NDArray[np.int64]], after: Sequence[NDArray[np.int64]]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """One number for each combination of numbers, the same in both."""
    keys = np.zeros(len(before[0]) + len(after[0]), np.int64)
    for ours, theirs in zip(before, after, strict=True):
        column = np.concatenate((ours, theirs))
        _, keys = np.unique(keys * (column.max(initial=0) + 1) + column, return_inverse=True)
    return keys[: len(before[0])], keys[len(before[0]) :]


def _pairs(before: NDArray[np.int64], after: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Places of equal keys, the k-th of one with the k-th of the other."""
    turn_before, turn_after = _turns(before), _turns(after)
    most = 1 + max(turn_before.max(initial=0), turn_after.max(initial=0))
    _, ours, theirs = np.intersect1d(
        before * most + turn_before, after * most + turn_after, assume_unique=True, return_indices=True
    )
    return ours, theirs


def _turns(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many equal keys come before each."""
    order = np.argsort(keys, kind="stable")
    first = np.searchsorted(keys[order], keys[order])
    turns = np.empty(len(keys), np.int64)
    turns[order] = np.arange(len(keys)) - first
    return turns
