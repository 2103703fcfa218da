"""What a margin can be about beside top-1, of stored answers: macro F1 by the predictions, AUROC and the calibration
error by the scores, which tools write as probabilities or as logits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from torchstone.core.errors import DataError
from torchstone.core.values import METRICS, Metric
from torchstone.core.verdict import AccuracyResult, MetricResult
from torchstone.data.findings import name_a_few
from torchstone.evaluate import metrics
from torchstone.judge import bootstrap
from torchstone.judge.accuracy import Answers
from torchstone.judge.answers import Scores, Told

BY_SCORES: tuple[Metric, ...] = ("auroc", "ece")
ROUNDED = 0.02
"""How far from 1 the probabilities of an item may add up: tools write them with a few digits."""

Floats = NDArray[np.float64]


def scores_of(told: Told, labels: set[str], metric: Metric) -> Scores:
    """The scores that this metric is made of. Raises a DataError where there are none, or none of a class that is
    labelled."""
    if told.scores is None:
        raise DataError(
            f"{METRICS[metric]} is made of scores, and '{told.path}' has none: its column "
            f"'{told.columns['prediction']}' says which class is answered, not how surely",
            hint="write a column of scores for each class (score_CLASS), or ask for --metric top1 or macro_f1",
        )
    if missing := sorted(labels - set(told.scores.classes)):
        raise DataError(
            f"'{told.path}' has no scores of {name_a_few(map(repr, missing))}, of which there are labels, only of "
            f"{name_a_few(map(repr, told.scores.classes))}",
            hint="a column of scores for each class, called like the labels: score_CLASS",
        )
    return told.scores


def probabilities(scores: Scores, items: Sequence[str], path: Path, classes: Sequence[str]) -> Floats:
    """float64[n, classes]: the scores of ``items`` as probabilities of ``classes``; a class without a score has none.

    Scores that add up to 1 are probabilities. Others are logits, unless they are said to be probabilities or all lie
    between 0 and 1: what those are nobody can tell, and a DataError says so.
    """
    values = np.asarray(scores.values, np.float64)
    within = bool(values.min() >= 0 and values.max() <= 1 + ROUNDED)
    sums = values.sum(axis=1)
    apart = np.abs(sums - 1)
    if within and apart.max() <= ROUNDED:
        likely = values / sums[:, None]
    elif within or scores.certain:
        row = int(apart.argmax())
        raise DataError(
            f"the scores of '{items[row]}' in '{path}' are neither probabilities, which add up to 1, nor "
            f"logits: they lie between {values[row].min():g} and {values[row].max():g} and add up to {sums[row]:.3g}",
            hint="write what softmax makes of the logits, with four digits or more, or the logits as logit_CLASS",
        )
    else:
        likely = metrics.softmax(values)
    place = {name: number for number, name in enumerate(classes)}
    found = np.zeros((len(items), len(classes)))
    found[:, [place[name] for name in scores.classes]] = likely
    return found


class Measured:
    """One metric of each candidate beside the baseline's: drawn once, bounded at any level. ``stored`` are results, by
    the candidate's number, whose bounds are taken as they are at the level that stands with them."""

    def __init__(
        self,
        metric: Metric,
        answers: Sequence[Answers],
        likely: Sequence[Floats] | None,
        groups: NDArray[np.int64] | None,
        stored: dict[int, tuple[float, MetricResult | None]] | None = None,
    ) -> None:
        self.metric: Metric = metric
        self.answers, self.groups, self.stored = answers, groups, stored
        self.likely = likely
        self._drawn: dict[int, bootstrap.Metrics] = {}

    def of(self, number: int, level: float, result: AccuracyResult) -> MetricResult | None:
        """The metric of the candidate (0: the baseline, unbounded), None where these images do not define it."""
        if self.metric == "top1":
            return None
        if number not in self._drawn:
            self._drawn[number] = bootstrap.compare(
                self.answers[0],
                self.answers[number],
                self.groups,
                probabilities=None if self.likely is None else (self.likely[0], self.likely[number]),
                only=self.metric,
                resamples=bootstrap.RESAMPLES if number and self.stored is None else None,
            )
        found = [one for one in self._drawn[number].at(level, result) if one.name == self.metric]
        if number and self.stored is not None:
            at, bounded = self.stored.get(number, (level, None))
            found = bootstrap.as_drawn(found, [bounded] if bounded is not None and at == level else [])
        return found[0] if found else None
