"""What is lost among the images that have something in common: of a class, of a group, of any column of the catalog.

A model can keep its accuracy and lose a class. A slice has its own bound, and of the k slices of a column each stands
at 1 - α/k, so that all of them hold together: one may look for the worst and still believe its bound. Slices decide
nothing; they say where to look.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchstone.core.numbers import is_number
from torchstone.core.verdict import SliceResult
from torchstone.evaluate import metrics
from torchstone.judge.accuracy import Answers, design_effect, upper_bounds

CLASS = "class"
"""The column that is always looked at."""
LEAST = 20
"""Images below which a slice is left out: its bound would say nothing."""
VALUES = 20
"""Different numbers up to which each is a slice of its own; more are cut into quarters of the images."""
NONE = "(none)"
MISSING = ("na", "n/a", "null", "none", "-", "?")
"""Words for an empty cell in a column of numbers, in small letters."""
WHOLE = 2**53
"""From here on a float64 does not hold every whole number."""


@dataclass(frozen=True)
class Column:
    """The value of each image as text, "" where it is in no slice."""

    name: str
    values: NDArray[np.str_]


def column(name: str, cells: Sequence[Any]) -> Column:
    """A column of a table as slices: each value, or where there are many numbers their quarters."""
    cells = [None if isinstance(cell, float) and math.isnan(cell) else cell for cell in cells]
    known = [cell for cell in cells if cell is not None]
    numbers = bool(known) and all(isinstance(cell, int | float) and not isinstance(cell, bool) for cell in known)
    if not numbers or len(set(known)) <= VALUES:
        return Column(name, np.array([NONE if cell is None else _text(cell) for cell in cells]))
    values = np.array([np.nan if cell is None else cell for cell in cells], np.float64)
    there = np.isfinite(values)
    quarter = np.searchsorted(np.quantile(values[there], (0.25, 0.5, 0.75)), values, side="left")
    inside = [there & (quarter == part) for part in np.unique(quarter[there])]
    texts = np.full(len(values), NONE, dtype=object)
    for rows, said in zip(inside, _ends([(values[rows].min(), values[rows].max()) for rows in inside]), strict=True):
        texts[rows] = said
    return Column(name, texts.astype(str))


def _text(cell: Any) -> str:
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)


def _ends(quarters: Sequence[tuple[float, float]]) -> list[str]:
    """Each from its least to its most, with as many digits as tell them apart."""
    if all(float(end).is_integer() and abs(end) < WHOLE for quarter in quarters for end in quarter):
        return [f"{least:.0f} to {most:.0f}" for least, most in quarters]
    for digits in range(4, 18):
        said = [f"{least:.{digits}g} to {most:.{digits}g}" for least, most in quarters]
        if len(set(said)) == len(said):
            return said
    raise AssertionError("quarters of different numbers differ in seventeen digits")


def typed(cells: Sequence[Any]) -> list[Any]:
    """Cells of a table whose types cannot be relied on: None where one is empty, and numbers where there are so many
    different ones that ``column`` cuts them into quarters. Where all others are numbers, a word of ``MISSING`` is an
    empty cell; among names it may be one itself."""
    stripped = (cell.strip() if isinstance(cell, str) else cell for cell in cells)
    found = [None if cell in ("", "nan", "NaN") else cell for cell in stripped]
    words = {cell for cell in found if isinstance(cell, str)}
    missing = {word for word in words if word.lower() in MISSING}
    others = {cell for cell in found if cell is not None} - missing
    try:
        numbers = {word: float(word) for word in words - missing}
    except ValueError:
        return found
    if not others or any(isinstance(cell, bool) for cell in others):
        return found
    if len(others) <= VALUES:  # each a slice of its own, by the name that it has
        numbers = {}
    return [None if cell in missing else numbers.get(cell, cell) if isinstance(cell, str) else cell for cell in found]


def words_among_numbers(cells: Sequence[Any]) -> list[str]:
    """The few different words (a tenth of all values at most) because of which ``typed`` takes a column of many numbers
    for one of names."""
    values = {cell for cell in typed(cells) if cell is not None}
    words = sorted(str(value) for value in values if not is_number(value) and str(value).lower() not in MISSING)
    return words if len(values) > VALUES and 0 < 10 * len(words) <= len(values) else []


def classes(labels: NDArray[np.int64], names: Sequence[str]) -> Column:
    """The column that is always there: the class that each image is labelled with."""
    return Column(CLASS, np.array(names)[labels])


def compare(
    baseline: Answers,
    candidate: Answers,
    columns: Sequence[Column],
    level: float,
    groups: NDArray[np.integer] | None = None,
) -> tuple[SliceResult, ...]:
    """Every slice of ``LEAST`` images or more, by column; within a column the largest drop first.

    ``groups`` as in ``accuracy.compare``; the slices of the column ``group`` are single groups, whose images are then
    taken one by one: the bound speaks of that group alone.
    """
    labels = np.asarray(baseline.labels, np.int64)
    before, after = (metrics.predicted_classes(one.scores) == labels for one in (baseline, candidate))
    found: list[SliceResult] = []
    for one in columns:
        found += _of_column(one, before & ~after, after & ~before, level, None if one.name == "group" else groups)
    return tuple(found)


def _of_column(
    column: Column,
    lost: NDArray[np.bool_],
    gained: NDArray[np.bool_],
    level: float,
    groups: NDArray[np.integer] | None,
) -> list[SliceResult]:
    names, place, sizes = np.unique(column.values, return_inverse=True, return_counts=True)
    place = place.ravel()
    large = np.flatnonzero(sizes >= LEAST)
    if not len(large):
        return []
    own_level = 1 - (1 - level) / len(large)
    counts = [np.bincount(place, one, minlength=len(names))[large] for one in (lost, gained)]
    effects = np.ones(len(large))
    if groups is not None:
        rows = [np.flatnonzero(place == part) for part in large]
        effects = np.array([design_effect(lost[own], gained[own], groups[own]) for own in rows])
    bounds = upper_bounds(counts[0] / effects, counts[1] / effects, sizes[large] / effects, own_level)
    found = [
        SliceResult(
            column=column.name,
            value=str(names[part]),
            images=int(sizes[part]),
            lost=int(counts[0][number]),
            gained=int(counts[1][number]),
            drop=100 * float((counts[0][number] - counts[1][number]) / sizes[part]),
            drop_upper=100 * float(bounds[number]),
            level=own_level,
        )
        for number, part in enumerate(large)
    ]
    return sorted(found, key=lambda one: (-one.drop, -one.drop_upper, one.value))
