"""Metrics that are no proportion of images: macro F1, AUROC and calibration error, bounded by the paired bootstrap.

Images are drawn with replacement, each with the answers of both models, and the difference of the metric is taken anew
(Efron & Tibshirani 1993, chapter 13). Images of one group are drawn together. The bounds of macro F1 and AUROC are
percentiles: in a simulation of their coverage BCa bounds were no better. Those of the calibration error allow for what
chance adds to it: where the baseline is calibrated and the candidate is not, percentiles missed 7 times in 10.

A bootstrap knows only what it has seen: where no image is lost it would bound the loss by nothing, and where three of
400 are, the upper bound of macro F1 misses 15 times in 100; that of AUROC misses 8 to 18 times where classes are small.
So each resample gains one image on average that is lost and one that is gained, of classes as frequent as they are. It
is what Bonett & Price (2012), *Adjusted Wald confidence intervals for a difference of binomial proportions based on
paired data*, Journal of Educational and Behavioral Statistics 37:479-488, add to two proportions. What these bounds
then miss is shown by benchmarks/judge_coverage.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from torchstone.core import seeding
from torchstone.core.values import LESS_IS_BETTER, Metric
from torchstone.core.verdict import AccuracyResult, Draws, MetricResult
from torchstone.evaluate import metrics
from torchstone.judge import stream
from torchstone.judge.accuracy import Answers
from torchstone.judge.differences import short
from torchstone.judge.stream import Stream

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
    """Images that nobody has seen, one entry each: the resample that gains it, what it is like, its label, the class
    that it is mistaken for, and by whom: lost is mistaken by the candidate, gained by the baseline. Each counts as
    ``size`` images."""

    resample: NDArray[np.intp]
    like: NDArray[np.int64]
    """The image that it is like."""
    label: NDArray[np.int64]
    mistaken: NDArray[np.int64]
    lost: NDArray[np.bool_]
    size: float


class Statistic(Protocol):
    """A metric of both models on the same images."""

    values: Pair[float]
    """Of the baseline and of the candidate, as fractions."""

    def worse(self, weights: Floats, extra: Extra) -> Floats:
        """float64[b, k]: by how much the candidate is worse when the images count as often as ``weights`` says,
        float64[b, n]; and what else the bounds are made of."""
        ...

    def bounds(self, draws: Floats, level: float, units: int) -> Pair[float]:
        """One-sided bounds of the truth, each at ``level``, from all that was drawn, float64[resamples, k]."""
        ...


@dataclass(frozen=True)
class Metrics:
    """All metrics of two models on the same images. ``draws``: what each was in every resample, None where nothing is
    claimed; the bounds at any level are taken from the same draws."""

    statistics: Mapping[Metric, Statistic]
    draws: Mapping[Metric, Floats] | None
    units: int

    def at(self, level: float, result: AccuracyResult) -> tuple[MetricResult, ...]:
        """With bounds at the one-sided ``level``; those of top-1 are ``result``'s, which must be of this level."""
        found = [top1(result, bounded=self.draws is not None)]
        for name, statistic in self.statistics.items():
            one, other = statistic.values
            bounds = None
            if self.draws is not None and self.units >= LEAST_UNITS:
                bounds = statistic.bounds(self.draws[name], level, self.units)
            found.append(
                MetricResult(
                    name=name,
                    baseline=100 * one,
                    value=100 * other,
                    difference=100 * (other - one if name in LESS_IS_BETTER else one - other),
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
    probabilities: Pair[Floats] | None = None,
    only: Metric | None = None,
    resamples: int | None = RESAMPLES,
) -> Metrics:
    """All metrics of two models that answered the same items in the same order (``accuracy.compare`` refuses others).

    The class that is answered has the largest score; ``probabilities`` float64[n, classes] are by default the softmax
    of the scores. ``resamples`` None draws none and bounds nothing; ``only`` leaves the other metrics out, but for
    top-1. A metric that these images do not define, such as the AUROC of one class alone, is left out. Memory does not
    grow with ``resamples``; the time is about 2 seconds for 10,000 images of 10 classes on one core. The same answers
    give the same bounds.
    """
    labels = np.asarray(baseline.labels, np.int64)
    before, after = (metrics.predicted_classes(one.scores) for one in (baseline, candidate))
    order = np.lexsort((after, before, labels))  # what is answered alike stands together, so that it can be summed up
    labels, before, after = labels[order], before[order], after[order]
    likely = probabilities or tuple(
        metrics.softmax(np.asarray(one.scores, np.float64)) for one in (baseline, candidate)
    )
    first, second = (one[order] for one in likely)
    statistics: dict[Metric, Statistic] = {}
    for name, make in _STATISTICS.items():
        if only in (None, name):
            statistic = make(labels, (before, after), (first, second))
            if not any(map(math.isnan, statistic.values)):
                statistics[name] = statistic
    units = np.arange(len(labels)) if groups is None else np.unique(groups[order], return_inverse=True)[1].ravel()
    return Metrics(
        statistics=statistics,
        draws=None if resamples is None else _draw(statistics, labels, units, resamples),
        units=int(units.max()) + 1,
    )


def draws() -> Draws:
    """How bounds are drawn here."""
    return stream.described(RESAMPLES)


def are_drawn(found: Sequence[MetricResult]) -> bool:
    """Whether any of these bounds comes from the bootstrap."""
    return any(one.name != "top1" and one.upper is not None for one in found)


def as_drawn(found: Sequence[MetricResult], stored: Sequence[MetricResult]) -> list[MetricResult]:
    """The metrics with the bounds that are ``stored``. A level that a row was tested at before its last one left none:
    it did not pass there."""
    bounds = {one.name: {"lower": one.lower, "upper": one.upper} for one in stored}
    return [one.model_copy(update=bounds.get(one.name, {})) for one in found]


def cannot_redraw(then: Draws | None) -> str | None:
    """Why bounds that were drawn so cannot be drawn again here; None where they can, or none was drawn."""
    now = draws()
    if then is None or then.model_copy(update={"numpy": now.numpy}) == now:
        return None
    one, other = (
        f"{each.resamples:,} times from {each.bit_generator} of numpy {each.numpy} (stream {short(each.stream)})"
        for each in (then, now)
    )
    return f"drawn {one}; here {other}"


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
    """For each metric, what it was in every resample."""
    random = Stream(seeding.seed_of("paired bootstrap", len(labels), resamples))
    sizes = np.bincount(units)
    size = float((sizes.astype(np.float64) ** 2).sum() / len(labels))  # of the group of an average image
    found: dict[Metric, list[Floats]] = {name: [] for name in statistics}
    for weights in _weights(random, units, resamples):
        extra = _extra(random, labels, len(weights), size)
        for name, statistic in statistics.items():
            found[name].append(statistic.worse(weights, extra))
    return {name: np.concatenate(drawn) for name, drawn in found.items()}


def _weights(random: Stream, units: NDArray[np.intp], resamples: int) -> Iterator[Floats]:
    """float64[b, n], block by block: how often each image was drawn, its whole unit with it."""
    count = int(units.max()) + 1
    block = max(1, AT_ONCE // len(units))
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        drawn = random.below(count, (size, count))
        drawn += count * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count).astype(np.float64)
        yield times if count == len(units) and (units[:-1] < units[1:]).all() else times[:, units]


def _extra(random: Stream, labels: NDArray[np.int64], resamples: int, size: float) -> Extra:
    """One lost and one gained image for each resample on average; both of its classes as frequent as in ``labels``."""
    counts = random.poisson((2, resamples))
    total = int(counts.sum())
    like, others = random.below(len(labels), (2, total))
    own, other = labels[like], labels[others]
    for _ in range(20):  # mistaken for another class than its own
        same = np.flatnonzero(other == own)
        if not len(same):
            break
        other[same] = labels[random.below(len(labels), (len(same),))]
    resample = np.concatenate([np.repeat(np.arange(resamples), count) for count in counts])
    return Extra(resample, like, own, other, np.arange(total) < counts[0].sum(), size)


def percentiles(draws: Floats, level: float, units: int) -> Pair[float]:
    """Percentiles of the draws, widened for few units: by the quantile of Student's t over the normal one."""
    middle, below, above = _reach(draws, level, units)
    return middle - below, middle + above


def _reach(draws: Floats, level: float, units: int) -> tuple[float, float, float]:
    """The middle of the draws, and how far their one-sided bounds lie below and above it."""
    z = NormalDist().inv_cdf(level)
    wider = student(z, units - 1) / z * math.sqrt(units / (units - 1))
    lower, middle, upper = (float(value) for value in np.quantile(draws, (1 - level, 0.5, level)))
    return middle, wider * (middle - lower), wider * (upper - middle)


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
        return (scores[0] - scores[1])[:, None]

    def bounds(self, draws: Floats, level: float, units: int) -> Pair[float]:
        return percentiles(draws[:, 0], level, units)


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
        return found[:, None]

    def bounds(self, draws: Floats, level: float, units: int) -> Pair[float]:
        return percentiles(draws[:, 0], level, units)


class CalibrationError:
    """``metrics.ece``: sums of what the images add to the bins of both models.

    The error is a sum of absolute values, so that chance alone makes it larger: of a model that is calibrated, whatever
    is found is chance, and more images never remove it, for it falls as slowly as the spread. A difference of two such
    errors is off by as much as one model is nearer to being calibrated than the other. So there are two bounds, each at
    half the error, of which the better counts:

    - the difference found and its spread, and with it the most that chance can add to one model's error: √(2/π)
      standard deviations of each bin's sum, for a bin that has no error;
    - the sum over the bins of how far the two models are apart, which no difference of the two errors exceeds and which
      chance only enlarges. Of two models that answer alike it is small.

    The deviation of a bin is the larger of what was found and of what a calibrated model has: where no error was seen,
    none found says little.
    """

    def __init__(self, labels: NDArray[np.int64], answers: Pair[NDArray[np.int64]], likely: Pair[Floats]) -> None:
        first, second = (metrics.ece(labels, one) for one in likely)
        self.values = first, second
        self.places: list[NDArray[np.int64]] = []
        self.confidences: list[Floats] = []
        self.tables: list[Floats] = []
        for one in likely:
            place, gap = metrics.calibration_gaps(labels, one)
            table = np.zeros((len(labels), metrics.CALIBRATION_BINS))
            table[np.arange(len(labels)), place] = gap
            self.tables.append(table)
            self.places.append(place)
            self.confidences.append(one.max(axis=1))
        self.apart = float(np.abs((self.tables[1] - self.tables[0]).sum(axis=0)).sum() / len(labels))
        self.chance = [_chance(*one) for one in zip(self.places, self.tables, self.confidences, strict=True)]

    def worse(self, weights: Floats, extra: Extra) -> Floats:
        sums = []
        for model, table in enumerate(self.tables):
            found = weights @ table
            right = extra.lost if model == 0 else ~extra.lost
            gap = right - self.confidences[model][extra.like]
            np.add.at(found, (extra.resample, self.places[model][extra.like]), extra.size * gap)
            sums.append(found)
        before, after = (np.abs(found).sum(axis=1) for found in sums)
        apart = np.abs(sums[1] - sums[0]).sum(axis=1)
        return np.stack([after - before, apart], axis=1) / weights.sum(axis=1)[:, None]

    def bounds(self, draws: Floats, level: float, units: int) -> Pair[float]:
        half, estimate = (1 + level) / 2, self.values[1] - self.values[0]
        _, below, above = _reach(draws[:, 0], half, units)
        apart = self.apart + _reach(draws[:, 1], half, units)[2]
        fewer = math.sqrt(len(self.places[0]) / units)  # images of a group share their chance
        lower = estimate - below - fewer * self.chance[1]
        return max(lower, -apart), min(estimate + above + fewer * self.chance[0], apart)


def _chance(place: NDArray[np.int64], table: Floats, confidence: Floats) -> float:
    """The most that chance adds to a calibration error, on average."""
    calibrated = np.bincount(place, confidence * (1 - confidence), minlength=table.shape[1])
    count = np.maximum(np.bincount(place, minlength=table.shape[1]), 1)
    found = (table**2).sum(axis=0) - table.sum(axis=0) ** 2 / count
    return float(math.sqrt(2 / math.pi) * np.sqrt(np.maximum(calibrated, found)).sum() / len(place))


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
