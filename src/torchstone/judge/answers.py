"""What a file of answers says, whoever wrote it: which images, what they show, and what a model took them for.

CSV, TSV, JSON lines or Parquet, a row an image. The columns are found by their names (``NAMES``): an item, its label,
and the model's prediction or its scores, which are one column a class (``score_rose``) or one column of lists.
torchstone's own predictions are such a file.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchstone.core import files
from torchstone.core.errors import DataError
from torchstone.core.numbers import whole
from torchstone.data.findings import count_of, name_a_few
from torchstone.data.readers import manifest
from torchstone.judge import answer_tables
from torchstone.judge.answer_tables import Table

NAMES: dict[str, tuple[str, ...]] = {
    "item": (
        "item", "item_id", "image_id", "sample_id", "id", "image", "image_name", "image_path", "img", "filename",
        "file_name", "file", "filepath", "file_path", "path", "name", "key", "index", "idx",
    ),
    "label": (
        "label", "true_label", "y_true", "target", "ground_truth", "gt", "truth", "actual", "true", "class",
        "class_name", "label_name", "category", "y",
    ),
    "prediction": (
        "prediction", "predicted", "pred", "y_pred", "predicted_label", "pred_label", "predicted_class", "pred_class",
        "prediction_label", "preds", "predictions", "y_hat", "yhat", "answer",
    ),
    "scores": ("scores", "logits", "probabilities", "probs", "score", "proba", "logit", "prob", "y_score", "outputs"),
    "group": manifest.NAMES["group"],
}  # fmt: skip
"""What each column may be called, whatever its case; of several the first counts."""
SCORE_OF = re.compile(r"(scores?|probs?|proba|probability|logits?)[_.:\- ](.+)", re.IGNORECASE | re.DOTALL)
"""A column with one class's scores."""
PROBABLE = re.compile(r"prob", re.IGNORECASE)
"""A column of scores that are said to be probabilities."""
ALIKE = 0.8
"""How near, of 1, a column's name must be to a known one to be called a slip: 'label' is no 'pred_label'."""
WHOLE = re.compile(r"(-?[0-9]+)\.0+")


@dataclass(frozen=True, kw_only=True)
class Scores:
    """A score for each class of each item, float[n, classes], in the file's order."""

    values: NDArray[Any]
    classes: tuple[str, ...]
    certain: bool
    """Whether their column says that they are probabilities."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """What one file says, in its order. Classes are text: ``rose``, or ``3`` where they are numbers."""

    path: Path
    sha256: str
    header: Mapping[str, Any]
    """What torchstone wrote into it: empty in a file of another tool."""
    items: Sequence[str]
    labels: Sequence[str] | None
    predictions: Sequence[str]
    scores: Scores | None
    """None where the file has none, or where they were not asked for."""
    groups: Sequence[str] | None
    """What an item belongs to (a patient, a film), "" where it stands alone; None without the column."""
    beside: Mapping[str, Sequence[Any]]
    """The cells of what was asked for beside these."""
    names: Sequence[str]
    """Of all columns."""
    columns: Mapping[str, str]
    """Which column was taken for what: item, label, prediction or scores, group."""
    notes: tuple[str, ...]
    """What a person should know of how it was read."""

    @property
    def understood(self) -> str:
        """One line for a person."""
        found = ", ".join(f"{role} = '{column}'" for role, column in self.columns.items())
        return f"{self.path}: {count_of(len(self.items), 'item')}; {found}"


def read(place: Path, *, scores: bool = False, beside: Sequence[str] = ()) -> Told:
    """The answers at ``place``, a table or a directory that holds one; its ``scores`` are kept where they are asked
    for, and of the others no more than the largest of each item. ``beside`` are further columns, or roles of
    ``NAMES``; those that the table does not have are left out.

    Raises a DataError where a column is missing, an item stands twice, a cell is empty or no number, or the file is
    larger than can be read.
    """
    path = answer_tables.find(place)
    table, header = answer_tables.opened(path)
    columns = {role: name for role in NAMES if (name := _column(table.names, role)) is not None}
    if "item" not in columns:
        raise _no_column(path, "item", table.names)
    items = _texts(table, columns["item"], "item", _name)
    if not items:
        raise DataError(f"'{path}' has no rows", hint="a row for each image")
    answer_tables.refuse_too_many(path, len(items), 1)
    _each_once(table, items)
    answered = _answers(path, table, columns, header.get("classes"))
    labels = None
    if "label" in columns:
        labels = _labels(table, columns["label"], answered.classes, numbered=answered.numbered)
    return Told(
        path=path,
        sha256=files.sha256(path),
        header=header,
        items=items,
        labels=labels,
        predictions=answered.predictions,
        scores=answered.scores if scores else None,
        groups=[_name(cell) for cell in table.cells(columns["group"])] if "group" in columns else None,
        beside={name: table.cells(found) for name in beside if (found := columns.get(name, name)) in table.names},
        names=tuple(table.names),
        columns={
            "item": columns["item"],
            **({"label": columns["label"]} if labels is not None else {}),
            answered.role: answered.column,
            **({"group": columns["group"]} if "group" in columns else {}),
        },
        notes=answered.notes,
    )


@dataclass(frozen=True, kw_only=True)
class _Answered:
    predictions: Sequence[str]
    role: str
    column: str
    classes: tuple[str, ...] = ()
    """Those of the scores, in their order; empty where predictions were read."""
    numbered: bool = True
    """Whether a label that is a number counts ``classes`` from 0."""
    scores: Scores | None = None
    notes: tuple[str, ...] = ()


def _answers(path: Path, table: Table, columns: Mapping[str, str], named: Any) -> _Answered:
    """The predictions, as written or by the largest score. ``named`` are the classes by torchstone's header."""
    scored = _scored(path, table, columns, named)
    if "prediction" not in columns:
        if scored is None:
            raise _no_column(path, "prediction", table.names)
        return scored
    written = _texts(table, columns["prediction"], "prediction", _class)
    if scored is None:
        return _Answered(predictions=written, role="prediction", column=columns["prediction"])
    other = sum(one != two for one, two in zip(written, scored.predictions, strict=True))
    same_names = set(scored.classes).issuperset(written)
    note = f"{path}: the prediction is not the largest score of {count_of(other, 'item')}; the prediction counts"
    return _Answered(
        predictions=written,
        role="prediction",
        column=columns["prediction"],
        scores=scored.scores,
        notes=(note,) if other and same_names else (),
    )


def _scored(path: Path, table: Table, columns: Mapping[str, str], named: Any) -> _Answered | None:
    """The class of each item's largest score, the first where several are equal; None where there are no scores."""
    if "scores" in columns and (values := table.lists(columns["scores"])) is not None:
        column, names = columns["scores"], tuple(map(str, named if isinstance(named, list) else range(values.shape[1])))
        if len(names) != values.shape[1]:
            raise DataError(
                f"'{path}' names {len(names)} classes for {values.shape[1]} scores an item", hint="write it again"
            )
    else:
        found = _score_columns(table.names)
        if not found or (len(found) == 1 and "prediction" in columns):
            return None
        listed = list(found)
        answer_tables.refuse_too_many(path, len(table.cells(listed[0])), len(listed))
        values = np.column_stack([table.numbers(name) for name in found])
        column, names = f"{listed[0]}' … '{listed[-1]}", tuple(found.values())
    if values.shape[1] < 2:
        raise DataError(
            f"'{path}' has the scores of one class alone: '{column}'",
            hint="a column of scores for each class, or a column 'prediction'",
        )
    _refuse_broken(table, values, names)
    tied = int(((values == values.max(axis=1, keepdims=True)).sum(axis=1) > 1).sum())
    note = f"{path}: {count_of(tied, 'item')} with several equal largest scores; the first class counts"
    return _Answered(
        predictions=[names[index] for index in values.argmax(axis=1).tolist()],
        role="scores",
        column=column,
        classes=names,
        numbered=isinstance(named, list) or not all(map(str.isdecimal, names)),
        scores=Scores(values=values, classes=names, certain=PROBABLE.match(column) is not None),
        notes=(note,) if tied else (),
    )


def _score_columns(names: Sequence[str]) -> dict[str, str]:
    """Column: its class, of the first family of at least two columns that are called alike."""
    families: dict[str, dict[str, str]] = {}
    for name in names:
        if found := SCORE_OF.fullmatch(name):
            families.setdefault(found[1].lower(), {})[name] = _class(found[2])
    usual = [family for family in families.values() if len(family) > 1]
    return usual[0] if usual else next(iter(families.values()), {})


def _labels(table: Table, column: str, classes: tuple[str, ...], *, numbered: bool) -> list[str]:
    """Labels as the names of classes. Where the scores' classes have names, numbers count them from 0."""
    found = _texts(table, column, "label", _class)
    known = set(classes)
    if not classes or known.issuperset(found):
        return found
    for row, text in enumerate(found):
        if text in known:
            continue
        if numbered and (number := whole(text)) is not None and number < len(classes):
            found[row] = classes[number]
            continue
        raise DataError(
            f"{table.at(row)}: the label '{text}' is none of the {len(classes)} classes that have scores: "
            f"{name_a_few(map(repr, classes), most=6)}",
            hint="numbers count the classes from 0: is the last one missing, or do they begin at 1?"
            if text.isdecimal()
            else "call the classes of labels and scores alike",
        )
    return found


def _refuse_broken(table: Table, values: NDArray[Any], classes: Sequence[str]) -> None:
    broken = ~np.isfinite(values)
    if not broken.any():
        return
    rows = np.flatnonzero(broken.any(axis=1))
    first = classes[int(np.flatnonzero(broken[rows[0]])[0])]
    raise DataError(
        f"{table.at(int(rows[0]))}: the score of '{first}' is empty, NaN or infinite; such are {len(rows):,} of "
        f"{len(values):,} rows",
        hint="a model that answers NaN is broken: mend it rather than its evidence",
    )


def _each_once(table: Table, items: Sequence[str]) -> None:
    seen: dict[str, int] = {}
    again: dict[str, int] = {}
    for row, item in enumerate(items):
        if item in seen:
            again.setdefault(item, row)
        seen.setdefault(item, row)
    if again:
        item, row = next(iter(again.items()))
        raise DataError(
            f"'{item}' stands twice: {table.at(seen[item])} and {table.at(row)}; so do {len(again) - 1:,} other items"
            if len(again) > 1
            else f"'{item}' stands twice: {table.at(seen[item])} and {table.at(row)}",
            hint="an item a row: a name without its folder is often no id",
        )


def _texts(table: Table, column: str, role: str, spelt: Any) -> list[str]:
    found = [spelt(cell) for cell in table.cells(column)]
    if empty := [row for row, text in enumerate(found) if not text]:
        more = f", nor have {len(empty) - 1:,} other rows" if len(empty) > 1 else ""
        raise DataError(
            f"{table.at(empty[0])} has no {role} in '{column}'{more}",
            hint="write what the model answers for every item: a gap is no answer that can be judged",
        )
    return found


def _name(cell: Any) -> str:
    """An item as text; a whole number without a decimal point where the column holds floats."""
    return _class(cell) if isinstance(cell, float) else "" if cell is None else str(cell).strip()


def _class(cell: Any) -> str:
    """A class as text. Whole numbers lose their decimal point: tools write 3.0 where a column once had a gap."""
    text = "" if cell is None else str(cell).strip()
    if text.lower() == "nan":
        return ""
    found = WHOLE.fullmatch(text)
    return found[1] if found else text


def _column(names: Iterable[str], role: str) -> str | None:
    spelt = {re.sub(r"[\s\-]+", "_", name.strip().lower()): name for name in reversed(list(names))}
    return next((spelt[name] for name in NAMES[role] if name in spelt), None)


def _no_column(path: Path, role: str, names: Sequence[str]) -> DataError:
    there = f", only {name_a_few(map(repr, names), most=8)}" if names else ": it is empty"
    what = "column 'prediction', and no column of scores" if role == "prediction" else f"column '{role}'"
    known = [*NAMES[role], *(["score_CLASS"] if role == "prediction" else [])]
    hint = f"call it one of: {', '.join(known)}"
    for name in names:
        if close := difflib.get_close_matches(name.lower(), NAMES[role], n=1, cutoff=ALIKE):
            hint = f"did you mean '{close[0]}' by '{name}'?"
            break
    return DataError(f"'{path}' has no {what}{there}", hint=hint)
