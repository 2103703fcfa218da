"""What a model gets wrong, beside what its baseline got wrong on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from torchstone.core.values import Part
from torchstone.evaluate import metrics

if TYPE_CHECKING:
    from torchstone.evaluate.predict import Predictions


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What one model answered on one part, in the baseline's order of items."""

    items: tuple[str, ...]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    probability: NDArray[np.float64]
    """Softmax probability of the predicted class."""

    @property
    def right(self) -> NDArray[np.bool_]:
        return self.labels == self.predicted


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The model that the report looks at, and the baseline on the same images (itself where there is no other)."""

    name: str
    part: Part
    subject: Answers
    baseline: Answers


@dataclass(frozen=True, kw_only=True)
class Recall:
    """Recall of one class that the part has images of, per cent."""

    label: int
    images: int
    baseline: float
    subject: float

    @property
    def change(self) -> float:
        return self.subject - self.baseline


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """So many images of class ``given`` were taken for ``predicted``."""

    given: int
    predicted: int
    images: int
    of: int
    baseline_images: int


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """One image that the subject gets wrong. Probabilities on the 0..1 scale."""

    item: str
    given: int
    predicted: int
    probability: float
    baseline_right: bool


def answers(predictions: Predictions, items: Sequence[str] | None = None) -> Answers:
    """Classes and probabilities from stored logits, in the order of ``items``."""
    order = np.arange(len(predictions.items))
    if items is not None:
        row = {str(item): index for index, item in enumerate(predictions.items)}
        order = np.array([row[item] for item in items], dtype=np.intp)
    logits = np.asarray(predictions.scores, dtype=np.float64)[order]
    shifted = logits - logits.max(axis=1, keepdims=True)
    return Answers(
        items=tuple(str(predictions.items[index]) for index in order),
        labels=np.asarray(predictions.labels, dtype=np.int64)[order],
        predicted=logits.argmax(axis=1),
        probability=1.0 / np.exp(shifted).sum(axis=1),
    )


def matrices(comparison: Comparison, classes: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The confusion matrices of subject and baseline, int64[classes, classes]: rows are the given labels."""
    subject, baseline = comparison.subject, comparison.baseline
    return (
        metrics.confusion(subject.labels, subject.predicted, classes),
        metrics.confusion(baseline.labels, baseline.predicted, classes),
    )


def recalls(comparison: Comparison, classes: int) -> list[Recall]:
    """Every class that has images, the lowest recall first."""
    now, before = matrices(comparison, classes)
    images = now.sum(axis=1)
    found = [
        Recall(label=label, images=int(images[label]), baseline=100 * float(was), subject=100 * float(is_))
        for label, (was, is_) in enumerate(zip(metrics.recall(before), metrics.recall(now), strict=True))
        if images[label]
    ]
    return sorted(found, key=lambda recall: (recall.subject, recall.change, recall.label))


def confusions(comparison: Comparison, classes: int, limit: int) -> list[Confusion]:
    """The pairs of classes that are confused most often."""
    now, before = matrices(comparison, classes)
    images = now.sum(axis=1)
    wrong = now.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:limit]
    return [
        Confusion(
            given=int(given),
            predicted=int(predicted),
            images=int(wrong[given, predicted]),
            of=int(images[given]),
            baseline_images=int(before[given, predicted]),
        )
        for given, predicted in (divmod(int(cell), classes) for cell in order)
        if wrong[given, predicted]
    ]


def worst(comparison: Comparison, limit: int) -> list[Mistake]:
    """The images that the baseline had right and the subject gets wrong, then its other mistakes; each group by
    falling confidence in the wrong class."""
    subject, baseline = comparison.subject, comparison.baseline
    wrong = np.flatnonzero(~subject.right)
    order = wrong[np.lexsort((-subject.probability[wrong], ~baseline.right[wrong]))]
    return [
        Mistake(
            item=subject.items[row],
            given=int(subject.labels[row]),
            predicted=int(subject.predicted[row]),
            probability=float(subject.probability[row]),
            baseline_right=bool(baseline.right[row]),
        )
        for row in order[:limit]
    ]
