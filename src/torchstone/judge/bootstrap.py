"""Metrics that are no proportion of images: macro F1, AUROC and calibration error, bounded by the paired bootstrap.

Images are drawn with replacement, each with the answers of both models, and the difference of the metric is taken anew
(Efron & Tibshirani 1993, chapter 13). Images of one group are drawn together. The bounds are percentiles: in a
simulation of their coverage BCa bounds were no better for macro F1 and AUROC, and for the calibration error, which is
biased upwards in a resample, they missed 4 to 5 times in 100 where percentiles missed less than once, of a nominal 2.5.

A bootstrap knows only what it has seen: where no image is lost it would bound the loss by nothing, and where three of
400 are, the upper bound of macro F1 misses 15 times in 100; that of AUROC misses 8 to 18 times where classes are small.
So each resample gains one image on average that is lost and one that is gained, of classes as frequent as they are. It
is what Bonett & Price (2012), *Adjusted Wald confidence intervals for a difference of binomial proportions based on
paired data*, Journal of Educational and Behavioral Statistics 37:479-488, add to two proportions. What these bounds
then miss is shown by benchmarks/judge_coverage.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from torchstone.core import seeding
from torchstone.core.values import Metric
from torchstone.core.verdict import AccuracyResult, MetricResult
from torchstone.evaluate import metrics
from torchstone.judge.accuracy import Answers

RESAMPLES = 10_000
AT_ONCE = 2**21
"""Weights of images that are held at a time, over all resamples of a block."""
LEAST_UNITS = 5
"""Groups below which nothing is bounded: so few say nothing of how far groups differ."""

FALL = 1 / 8
"""Share of its class's ranking that an unseen image falls or rises, for AUROC. Whole falls would bound nothing of use;
by simulation an eighth keeps the level also where the classes are small and few images decide."""

Floats = NDArray[np.float64]
AnyT = TypeVar("AnyT")
Pair = tuple[AnyT, AnyT]
"""Of the baseline and of the candidate."""


@dataclass(frozen=True)
class Extra:
    """Images that nobody has seen, one entry each: the resample that gains it, its label, the class that it is mistaken
    for, and by whom: lost is mistaken by the candidate, gained by the baseline. Each counts as ``size`` images."""

    resample: NDArray[np.intp]
    label: NDArray[np.int64]
    mistaken: NDArray[np.int64]
    lost: NDArray[np.bool_]
    size: float


class Statistic(Protocol):
    """A metric of both models on the same images."""

    values: Pair[float]
    """Of the baseline and of the candidate, as fractions."""

    def worse(self, weights: Floats, extra: Extra) -> Floats:
        """float64[b]: by how much the candidate is worse when the images count as often as ``weights`` says,
        float64[b, n]."""
        ...


@dataclass(frozen=True)
class Metrics:
    """All metrics of two models on the same images. ``draws``: by how much the candidate is worse in every resample,
    None where nothing is claimed; the bounds at any level are taken from the same draws."""

    values: Mapping[Metric, Pair[float]]
    draws: Mapping[Metric, Floats] | None
    units: int

    def at(self, level: float, result: AccuracyResult) -> tuple[MetricResult, ...]:
        """With bounds at the one-sided ``level``; those of top-1 are ``result``'s, which must be of this level."""
        found = [top1(result, bounded=self.draws is not None)]
        for name, (one, other) in self.values.items():
            bounds = None if self.draws is None else _bounds(self.draws[name], level, self.units)
            found.append(
                MetricResult(
                    name=name,
                    baseline=100 * one,
                    value=100 * other,
                    difference=100 * (other - one if name == "ece" else one - other),
                    lower=None if bounds is None else 100 * bounds[0],
                    upper=None if bounds is None else 100 * bounds[1],
                )
            )
        return tuple(found)


def compare(
    baseline: Answers,
    candidate: Answers,
    groups: NDArray[np.integer] | None = None,
    *,
    only: Metric | None = None,
    resamples: int | None = RESAMPLES,
) -> Metrics:
    """All metrics of two models that answered the same items in the same order (``accuracy.compare`` refuses others).

    ``resamples`` None draws none and bounds nothing; ``only`` leaves the other metrics out, but for top-1. A metric
    that these images do not define, such as the AUROC of one class alone, is left out. Memory does not grow with
    ``resamples``; the time is about 2 seconds for 10,000 images of 10 classes on one core. The same answers give the
    same bounds.
    """
    labels = np.asarray(baseline.labels, np.int64)
    before, after = (metrics.predicted_classes(one.scores) for one in (baseline, candidate))
    order = np.lexsort((after, before, labels))  # what is answered alike stands together, so that it can be summed up
    labels, before, after = labels[order], before[order], after[order]
    first, second = (metrics.softmax(np.asarray(one.scores, np.float64)[order]) for one in (baseline, candidate))
    statistics: dict[Metric, Statistic] = {}
    for name, make in _STATISTICS.items():
        if only in (None, name):
            statistic = make(labels, (before, after), (first, second))
            if not any(map(math.isnan, statistic.values)):
                statistics[name] = statistic
    units = np.arange(len(labels)) if groups is None else np.unique(groups[order], return_inverse=True)[1].ravel()
    return Metrics(
        values={name: statistic.values for name, statistic in statistics.items()},
        draws=None if resamples is None else _draw(statistics, labels, units, resamples),
        units=int(units.max()) + 1,
    )


def top1(result: AccuracyResult, *, bounded: bool = True) -> MetricResult:
    """Top-1 as one metric among others."""
    return MetricResult(
        name="top1",
        baseline=result.baseline_top1,
        value=result.top1,
        difference=result.drop,
        lower=result.drop_lower if bounded else None,
        upper=result.drop_upper if bounded else None,
    )


def _draw(
    statistics: Mapping[Metric, Statistic], labels: NDArray[np.int64], units: NDArray[np.intp], resamples: int
) -> dict[Metric, Floats]:
    """For each metric, by how much the candidate is worse in every resample."""
    random = seeding.generator("paired bootstrap", len(labels), resamples)
    sizes = np.bincount(units)
    size = float((sizes.astype(np.float64) ** 2).sum() / len(labels))  # of the group of an average image
    draws: dict[Metric, Floats] = {name: np.empty(resamples) for name in statistics}
    done = 0
    for weights in _weights(random, units, resamples):
        extra = _extra(random, labels, len(weights), size)
        for name, statistic in statistics.items():
            draws[name][done : done + len(weights)] = statistic.worse(weights, extra)
        done += len(weights)
    return draws


def _weights(random: np.random.Generator, units: NDArray[np.intp], resamples: int) -> Iterator[Floats]:
    """float64[b, n], block by block: how often each image was drawn, its whole unit with it."""
    count = int(units.max()) + 1
    block = max(1, AT_ONCE // len(units))
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        drawn = random.integers(0, count, (size, count))
        drawn += count * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count).astype(np.float64)
        yield times if count == len(units) and (units[:-1] < units[1:]).all() else times[:, units]


def _extra(random: np.random.Generator, labels: NDArray[np.int64], resamples: int, size: float) -> Extra:
    """One lost and one gained image for each resample on average; both of its classes as frequent as in ``labels``."""
    counts = random.poisson(1.0, (2, resamples))
    total = int(counts.sum())
    own, other = labels[random.integers(0, len(labels), (2, total))]
    for _ in range(20):  # mistaken for another class than its own
        same = np.flatnonzero(other == own)
        if not len(same):
            break
        other[same] = labels[random.integers(0, len(labels), len(same))]
    resample = np.concatenate([np.repeat(np.arange(resamples), count) for count in counts])
    return Extra(resample, own, other, np.arange(total) < counts[0].sum(), size)


def _bounds(draws: Floats, level: float, units: int) -> tuple[float, float] | None:
    """Percentiles of the draws, widened for few units: by the quantile of Student's t over the normal one."""
    if units < LEAST_UNITS:
        return None
    z = NormalDist().inv_cdf(level)
    wider = student(z, units - 1) / z * math.sqrt(units / (units - 1))
    lower, middle, upper = (float(value) for value in np.quantile(draws, (1 - level, 0.5, level)))
    return middle + wider * (lower - middle), middle + wider * (upper - middle)


def student(z: float, freedom: int) -> float:
    """The quantile of Student's t that belongs to a normal quantile (Abramowitz & Stegun 26.7.5): within 1 % of it from
    4 degrees of freedom on, for one-sided levels up to 99 %."""
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92_160,
    )
    return z + sum(term / freedom**power for power, term in enumerate(terms, start=1))


class MacroF1:
    """Mean F1 of the classes that are present or predicted. It depends on the images by their counts of label and
    answers alone, so that these are drawn as one."""

    def __init__(self, labels: NDArray[np.int64], answers: Pair[NDArray[np.int64]], likely: Pair[Floats]) -> None:
        count = likely[0].shape[1]
        first, second = (metrics.macro_f1(metrics.confusion(labels, one, count)) for one in answers)
        self.values = first, second
        keys = (labels * count + answers[0]) * count + answers[1]
        self.starts = np.unique(keys, return_index=True)[1]  # the keys are sorted
        cells = [codes[self.starts] for codes in (labels, *answers)]
        every = np.ones(len(self.starts), bool)
        self.support = _Tally(cells[0], every, count)
        self.models = [(_Tally(one, every, count), _Tally(one, one == cells[0], count)) for one in cells[1:]]

    def worse(self, weights: Floats, extra: Extra) -> Floats:
        cells = np.add.reduceat(weights, self.starts, axis=1)
        support = self.support.of(cells)
        np.add.at(support, (extra.resample, extra.label), extra.size)
        scores = []
        for model, (predictions, hits) in enumerate(self.models):
            predicted, right = predictions.of(cells), hits.of(cells)
            found = extra.lost if model == 0 else ~extra.lost
            answer = np.where(found, extra.label, extra.mistaken)
            np.add.at(predicted, (extra.resample, answer), extra.size)
            np.add.at(right, (extra.resample[found], extra.label[found]), extra.size)
            whole = support + predicted
            rates = np.divide(2 * right, whole, out=np.zeros_like(right), where=whole > 0)
            scores.append(rates.sum(axis=1) / (whole > 0).sum(axis=1))
        return scores[0] - scores[1]


class Auroc:
    """Mean area under the ROC curve of each class against the rest, as the sum of what each image adds to it: its
    placements. Drawing their sums leaves out what is of the order of 1/n beside the drawn 1/√n (Hájek's projection, of
    which DeLong's variance is made), and takes a sum where the full metric would be sorted anew for each class.

    What an unseen image changes depends on how far it falls in its class's ranking: by ``FALL`` of it."""

    def __init__(self, labels: NDArray[np.int64], answers: Pair[NDArray[np.int64]], likely: Pair[Floats]) -> None:
        n = len(labels)
        ranked = metrics.classes_with_rivals(labels)
        self.influence = np.zeros(n)
        areas: list[Pair[float]] = []
        for label in ranked:
            own = labels == label
            share = np.where(own, n / own.sum(), n / (n - own.sum())) / len(ranked)
            before, after = (metrics.placements(own, one[:, label]) for one in likely)
            areas.append((float(before[own].mean()), float(after[own].mean())))
            fall = before - after
            self.influence += (fall - fall[own].mean()) * share
        first, second = np.mean(areas, axis=0) if areas else (math.nan, math.nan)
        self.values = float(first), float(second)
        self.estimate = self.values[0] - self.values[1]
        images = np.bincount(labels, minlength=likely[0].shape[1])
        self.fall = FALL / np.maximum(images * len(ranked), 1)  # of the mean area, by one image of each class

    def worse(self, weights: Floats, extra: Extra) -> Floats:
        found = self.estimate + (weights @ self.influence) / weights.sum(axis=1)
        np.add.at(found, extra.resample, np.where(extra.lost, 1, -1) * extra.size * self.fall[extra.label])
        return found


class CalibrationError:
    """``metrics.ece``: sums of what the images add to the bins of both models."""

    def __init__(self, labels: NDArray[np.int64], answers: Pair[NDArray[np.int64]], likely: Pair[Floats]) -> None:
        first, second = (metrics.ece(labels, one) for one in likely)
        self.values = first, second
        self.gaps: list[Floats] = []
        for one in likely:
            place, gap = metrics.calibration_gaps(labels, one)
            table = np.zeros((len(labels), metrics.CALIBRATION_BINS))
            table[np.arange(len(labels)), place] = gap
            self.gaps.append(table)

    def worse(self, weights: Floats, extra: Extra) -> Floats:
        before, after = (np.abs(weights @ table).sum(axis=1) for table in self.gaps)
        return (after - before) / weights.sum(axis=1)


class _Tally:
    """Sums of drawn counts by class: of those cells that ``which`` names, by their ``codes``."""

    def __init__(self, codes: NDArray[np.int64], which: NDArray[np.bool_], count: int) -> None:
        self.count = count
        chosen = np.flatnonzero(which)
        self.chosen = chosen[np.argsort(codes[chosen], kind="stable")]
        self.present, self.starts = np.unique(codes[self.chosen], return_index=True)

    def of(self, cells: Floats) -> Floats:
        """float64[b, classes]"""
        found = np.zeros((len(cells), self.count))
        if len(self.chosen):
            found[:, self.present] = np.add.reduceat(cells[:, self.chosen], self.starts, axis=1)
        return found


_STATISTICS: dict[Metric, Callable[..., Statistic]] = {"macro_f1": MacroF1, "auroc": Auroc, "ece": CalibrationError}
