"""Files of answers brought together: matched by item, checked for being about the same questions, in one order.

Items are matched by their ids, never by their order.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchstone.core import files, numbers
from torchstone.core.errors import DataError, nearest
from torchstone.core.values import Metric
from torchstone.data.findings import count_of, name_a_few
from torchstone.judge import slices, stored_metrics
from torchstone.judge.answer_tables import MAX_CELLS
from torchstone.judge.answers import Scores, Told

SAYS = {"item": "it names the items", "prediction": "it holds the answers", "scores": "it holds the answers"}
"""Of a column in such a role."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """One file's answers, in the order that all files of a case share. ``scores`` hold a 1 at the class answered;
    ``told_scores`` and ``likely`` are there where the metric is made of scores."""

    told: Told
    items: NDArray[np.str_]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    scores: NDArray[np.uint8]
    told_scores: Scores | None
    """As written."""
    likely: NDArray[np.float64] | None
    """float64[n, classes]: the scores as probabilities."""
    id: str


@dataclass(frozen=True, kw_only=True)
class Case:
    """Files that answer the same questions, the baseline first."""

    answers: tuple[Answers, ...]
    classes: tuple[str, ...]
    groups: NDArray[np.int64] | None
    """A number for each item, the same for items of one group; None where no two of them share a group."""
    fingerprint: str
    """Digest of the items and their labels: what the ledger counts by."""
    metric: Metric
    notes: tuple[str, ...]
    sliced: tuple[slices.Column, ...] = ()
    """By what to slice, beside the class."""

    @property
    def images(self) -> int:
        return len(self.answers[0].labels)


def case(told: Sequence[Told], metric: Metric = "top1") -> Case:
    """Match the files by item; the baseline comes first, and labels are those of its file, groups those of the first
    that has any. For a ``metric`` of ``stored_metrics.BY_SCORES`` they were read with their scores.

    Raises a DataError that names the first items which one of them lacks, labels or groups otherwise, where no
    prediction is a label, so that the two must be spelt differently, and where scores are needed that are not there.
    """
    baseline = told[0]
    if baseline.labels is None:
        raise DataError(
            f"'{baseline.path}' has no column of labels", hint="the baseline's file says what each item really shows"
        )
    truth = dict(zip(baseline.items, baseline.labels, strict=True))
    for one in told[1:]:
        _refuse_other_items(baseline, truth, one)
        _refuse_other_labels(baseline, truth, one)
    items = sorted(truth)
    labels = [truth[item] for item in items]
    known = set(labels)
    for one in told:
        _refuse_other_spelling(one, known)
    every: list[Scores | None] = [None] * len(told)
    if metric in stored_metrics.BY_SCORES:
        every = [stored_metrics.scores_of(one, known, metric) for one in told]
    scored = (scores.classes for scores in every if scores is not None)
    classes = _in_order(known.union(*(one.predictions for one in told), *scored))
    if len(items) * len(classes) > MAX_CELLS:
        raise DataError(
            f"{len(items):,} items and {len(classes):,} different answers are more than can be judged together",
            hint="is the column of labels or predictions one of classes?",
        )
    number = {name: index for index, name in enumerate(classes)}
    truths = np.array([number[label] for label in labels], np.int64)
    answers = tuple(_ordered(one, items, truths, number, scores) for one, scores in zip(told, every, strict=True))
    return Case(
        answers=answers,
        classes=classes,
        groups=_groups(told, items),
        fingerprint=files.digest([[item, truth[item]] for item in items]),
        metric=metric,
        notes=(
            *(note for one in told for note in one.notes),
            *_unknown_answers(told, known),
            *_suspicions(answers[0], classes),
            *_repeats(told, answers),
        ),
    )


def sliced(told: Sequence[Told], items: Sequence[str], names: Sequence[str]) -> tuple[slices.Column, ...]:
    """Columns to slice the ``items`` by, each of the first file that has it; the files were read with them beside. The
    one that groups the items is called ``group``, as in a catalog: each of its slices is one group.

    Raises a DataError where no file has a column, or where it says what the items, the labels or the answers are.
    """
    found: dict[str, slices.Column] = {}
    for name in names:
        one = next((one for one in told if name in one.beside), None)
        if one is None:
            raise DataError(
                f"no table has a column '{name}'", hint=nearest(name, {there for one in told for there in one.names})
            )
        role = next((role for role, column in one.columns.items() if name in (role, column)), None)
        if role == "group" and one.groups is not None:
            column = slices.column("group", [cell or None for cell in _in_place(one, one.groups, items)])
        elif role is not None or name == slices.CLASS:
            raise DataError(
                f"'{name}' cannot be sliced by: {SAYS.get(role or '', 'the class is always looked at')}",
                hint="name another column, such as a camera or a place",
            )
        else:
            column = slices.column(name, slices.typed(_in_place(one, one.beside[name], items)))
        found[column.name] = column
    return tuple(found.values())


def slice_notes(told: Sequence[Told], items: Sequence[str], names: Sequence[str]) -> list[str]:
    """What may not be meant in the columns to slice by: a file that has other cells there than the first that has the
    column, whose cells count; a word that keeps numbers from being cut into quarters. Not of the column that groups the
    items: there, a file that differs is an error (``case``)."""
    found: list[str] = []
    for name in names:
        having = [one for one in told if name in one.beside and name not in ("group", one.columns.get("group"))]
        cells = [_in_place(one, one.beside[name], items) for one in having]
        if cells and (words := slices.words_among_numbers(cells[0])):
            said = name_a_few(map(repr, words))
            found.append(f"'{name}' is taken as names, not as numbers: '{having[0].path}' has {said} in it")
        for other, theirs in zip(having[1:], cells[1:], strict=True):
            both = zip(items, cells[0], theirs, strict=True)
            differing = [(item, first, here) for item, first, here in both if _plain(first) != _plain(here)]
            if differing:
                item, first, here = differing[0]
                found.append(
                    f"'{other.path}' has other values of '{name}' for {count_of(len(differing), 'item')} than "
                    f"'{having[0].path}', whose values count: of '{item}' {_told(here)} instead of {_told(first)}"
                )
    return found


def _plain(cell: Any) -> str:
    """A cell whatever the format it was stored in: 1, 1.0 and "1" are one, so are true and True, and what is empty."""
    said = "" if cell is None else str(cell).strip()
    if said.lower() in ("", "nan", *slices.MISSING):
        return ""
    if said.lower() in ("true", "false"):
        return said.lower()
    if numbers.whole(said) is not None:
        return str(int(said))
    if not numbers.is_number(said):
        return said
    number = float(said)
    return str(int(number)) if number.is_integer() else f"{number:.6g}"  # as many digits as a float32 holds


def _told(cell: Any) -> str:
    return f"'{cell}'" if _plain(cell) else "none"


def _in_place(told: Told, cells: Sequence[Any], items: Sequence[str]) -> list[Any]:
    """The cells of a file's column in the order of ``items``."""
    of_item = dict(zip(told.items, cells, strict=True))
    return [of_item[item] for item in items]


def _ordered(
    told: Told, items: Sequence[str], labels: NDArray[np.int64], number: dict[str, int], told_scores: Scores | None
) -> Answers:
    """One file's answers in the order of ``items``."""
    answer = dict(zip(told.items, told.predictions, strict=True))
    predicted = np.array([number[answer[item]] for item in items], np.int64)
    scores = np.zeros((len(items), len(number)), np.uint8)
    scores[np.arange(len(items)), predicted] = 1
    known_by: list[Any] = [[item, answer[item]] for item in items]
    likely = None
    if told_scores is not None:
        place = {item: row for row, item in enumerate(told.items)}
        told_scores = replace(told_scores, values=told_scores.values[[place[item] for item in items]])
        likely = stored_metrics.probabilities(told_scores, items, told.path, tuple(number))
        known_by.append(_digest_of(told_scores))
    return Answers(
        told=told,
        items=np.array(items),
        labels=labels,
        predicted=predicted,
        scores=scores,
        told_scores=told_scores,
        likely=likely,
        id=files.digest(known_by),
    )


def _digest_of(scores: Scores) -> str:
    """Of the scores whatever order their columns stand in."""
    order = sorted(range(len(scores.classes)), key=scores.classes.__getitem__)
    values = np.ascontiguousarray(scores.values[:, order], dtype="<f8")
    return files.digest([[scores.classes[place] for place in order], hashlib.sha256(values.tobytes()).hexdigest()])


def _groups(told: Sequence[Told], items: Sequence[str]) -> NDArray[np.int64] | None:
    """Of the first file that has any; items without a group are their own. A DataError where another file has others:
    which of them belong together decides how much the items prove."""
    found: tuple[Told, NDArray[np.int64]] | None = None
    for one in told:
        if one.groups is None:
            continue
        group = dict(zip(one.items, one.groups, strict=True))
        numbers: dict[tuple[str, str], int] = {}
        own = np.array(
            [numbers.setdefault((group[item], "" if group[item] else item), len(numbers)) for item in items], np.int64
        )
        if found is not None and not np.array_equal(found[1], own):
            item = items[int(np.argmax(found[1] != own))]
            raise DataError(
                f"'{one.path}' groups the items otherwise than '{found[0].path}': '{item}' stands with others there",
                hint="one column of groups for both, or leave it out of one of them",
            )
        found = found or (one, own)
    return found[1] if found is not None and found[1].max() + 1 < len(items) else None


def _refuse_other_items(baseline: Told, truth: dict[str, str], one: Told) -> None:
    theirs = set(one.items)
    missing = [item for item in baseline.items if item not in theirs]
    extra = [item for item in one.items if item not in truth]
    if not missing and not extra:
        return
    if len(missing) == len(truth):
        raise DataError(
            f"'{baseline.path}' and '{one.path}' have no item in common: '{missing[0]}' here, '{extra[0]}' there",
            hint="ids must be spelt alike: the same folders before file names, the same suffixes",
        )
    lacks = [f"lacks {count_of(len(missing), 'item')} of the baseline ({name_a_few(missing)})"] if missing else []
    adds = [f"has {count_of(len(extra), 'item')} that the baseline lacks ({name_a_few(extra)})"] if extra else []
    raise DataError(
        f"'{one.path}' {' and '.join(lacks + adds)}", hint="both models must have answered the same test set, all of it"
    )


def _refuse_other_labels(baseline: Told, truth: dict[str, str], one: Told) -> None:
    if one.labels is None:
        return
    other = [(item, label) for item, label in zip(one.items, one.labels, strict=True) if truth[item] != label]
    if other:
        item, label = other[0]
        raise DataError(
            f"'{one.path}' labels {count_of(len(other), 'item')} otherwise than '{baseline.path}': '{item}' is "
            f"'{label}', there '{truth[item]}'",
            hint="one truth for both: names or numbers of the classes in one order, and one version of the labels",
        )


def _refuse_other_spelling(one: Told, labels: set[str]) -> None:
    if labels.isdisjoint(one.predictions):
        raise DataError(
            f"no prediction of '{one.path}' is among the labels: it answers {_examples(one.predictions)}, the labels "
            f"are {_examples(labels)}",
            hint="call the classes alike in both columns: by their names, or by their numbers",
        )


def _examples(texts: Sequence[str] | set[str]) -> str:
    return name_a_few(map(repr, _in_order(set(texts))))


def _suspicions(baseline: Answers, classes: tuple[str, ...]) -> tuple[str, ...]:
    """A baseline that is worse than one which never looks: its classes are probably counted in another way."""
    counts = np.bincount(baseline.labels, minlength=len(classes))
    right, blind = float(np.mean(baseline.predicted == baseline.labels)), counts.max() / len(baseline.labels)
    if right >= blind:
        return ()
    return (
        f"the baseline is right on {100 * right:.1f} % of the items, and always answering '{classes[counts.argmax()]}' "
        f"would be on {100 * blind:.1f} %: are the classes of its labels and its answers counted alike?",
    )


def _unknown_answers(told: Sequence[Told], labels: set[str]) -> list[str]:
    """Answers that no item is labelled with: a class that the test set has no image of, or one that is spelt wrong."""
    strange = {one.path: [answer for answer in one.predictions if answer not in labels] for one in told}
    return [
        f"{count_of(len(answers), 'answer')} of '{path}' is no item's label: {_examples(answers)}; counted as wrong"
        for path, answers in strange.items()
        if answers
    ]


def _repeats(told: Sequence[Told], answers: Sequence[Answers]) -> list[str]:
    """Candidates that answer as the baseline does, item by item."""
    return [
        f"'{one.path}' gives the very answers of the baseline: is it another model?"
        for one, its in zip(told[1:], answers[1:], strict=True)
        if np.array_equal(its.predicted, answers[0].predicted)
    ]


def _in_order(names: set[str]) -> tuple[str, ...]:
    """Numbers by their size, other names by the alphabet."""
    if all(re.fullmatch(r"-?[0-9]+", name) for name in names):
        return tuple(sorted(names, key=int))
    return tuple(sorted(names))
