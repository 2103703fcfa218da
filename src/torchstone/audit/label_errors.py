"""Images whose label is probably wrong, and images whose label is doubted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from torchstone.audit import AuditContext, probe
from torchstone.core import seeding
from torchstone.core.values import Finding
from torchstone.data.units import look_alikes, units
from torchstone.evaluate.metrics import softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray

FEWEST = 10
"""Different pictures of a class, below which it takes no part: the probe hardly knows it."""

KNOWS = 0.25
"""Least held-out recall, averaged over the classes, on a scale from 0 (guessing) to 1, at which the probe is heard."""

FEWEST_WRONG = 0.01
"""Share of wrong labels that is assumed where less is estimated: data sets that people labelled have 0.4 to 10 %, in
the middle 3 % (Northcutt, Athalye and Mueller 2021)."""

SHARPER = np.geomspace(0.5, 3.0, 24)
"""Candidates, as multiples, for the temperature without wrong labels: with them, a classifier that is right looks less
sure than it should be."""

ROUNDS = 15
"""Of expectation-maximisation for the share of wrong labels."""

SAMPLE = 8_000
"""Rows by which both are chosen."""

CONFUSIONS = 10
"""Pairs of classes that the evidence counts."""


@dataclass(frozen=True)
class Suspects:
    """Rows whose label the others speak against, the least credible label first."""

    rows: NDArray[np.intp]
    suggested: NDArray[np.intp]
    """For each of them, the class it seems to belong to."""
    confidence: NDArray[np.float32]
    """For all rows, the held-out probability of the label given."""
    recall: float
    """Of the probe on held-out images, averaged over the classes."""


class LabelErrors:
    """Confident learning (Northcutt, Jiang and Chuang 2021) on the features of a frozen network: a linear probe gives
    each image's classes a probability without having seen it, or any other image of the same picture or group. An
    image is doubted when another class is as probable for it as that class usually is for its own images.

    Where the probe itself errs often, most of these doubts are its own mistakes. So an image is named as probably wrong
    only where that is the more probable of two stories about its label: right, and hard to see; or replaced by another
    class, as happened to the share of all labels that explains what is seen best (``wrong``)."""

    requires: ClassVar[tuple[str, ...]] = ()

    def run(self, context: AuditContext) -> list[Finding]:
        if context.features is None or len(context.catalog.classes) < 2:
            return []
        labels = context.column("label").astype(np.intp)
        together = units(context.table, 0, "label_errors", look_alikes(context.catalog, context.table))
        pictures = np.bincount(
            labels[np.unique(together.of_row, return_index=True)[1]], minlength=len(context.catalog.classes)
        )
        if np.count_nonzero(pictures >= FEWEST) < 2:
            return []
        classes = context.catalog.classes
        rare = pictures < FEWEST  # a class of one image would attract others, and nobody could tell
        folds = np.where(rare[labels], np.int8(probe.NO_FOLD), probe.folds_of(labels, together))
        fitted = probe.fit(context.features.vectors, labels, folds, len(classes))
        found = suspects(fitted, context.features.vectors, labels, len(classes))
        evidence: dict = {"features": context.features.name, "held_out_recall": round(found.recall, 4)}
        if rare.any():
            evidence["classes_too_rare_to_judge"] = [classes[label] for label in np.flatnonzero(rare & (pictures > 0))]
        if found.recall - 1 / len(classes) < KNOWS * (1 - 1 / len(classes)):
            return [_unheard(found, evidence)]
        rows, suggested = found.rows, found.suggested
        chance, share = wrong(fitted, context.features.vectors, labels)
        named = chance[rows] > 0.5
        evidence |= {"estimated_share_of_wrong_labels": round(share, 4), "doubted": len(rows)}
        return [
            *_about(context, found, rows[named], suggested[named], evidence, certain=True),
            *_about(context, found, rows[~named], suggested[~named], evidence, certain=False),
        ]


def _about(
    context: AuditContext,
    found: Suspects,
    rows: NDArray[np.intp],
    suggested: NDArray[np.intp],
    evidence: dict,
    *,
    certain: bool,
) -> list[Finding]:
    """The finding of these images, if there are any."""
    if not len(rows):
        return []
    classes, labels = context.catalog.classes, context.column("label")
    pairs = [f"{classes[given]} → {classes[seems]}" for given, seems in zip(labels[rows], suggested, strict=True)]
    return [
        context.about(
            "label_errors",
            rows,
            "whose label is probably wrong" if certain else "whose label is doubted, and may well be right",
            notes=[pair.replace(" → ", ", seems ") for pair in pairs],
            hint="look at them, the first ones first, and move the files that lie in the wrong class"
            if certain
            else f"a classifier that is right on {100 * found.recall:.0f} % of the images takes them for another "
            "class: look at the first ones, as far as you have time",
            severity="warning" if certain else "info",
            suggested=tuple(classes[seems] for seems in suggested),
            scores=tuple(round(float(score), 4) for score in found.confidence[rows]),
            decision="review" if certain else None,
            evidence={**evidence, "pairs": dict(Counter(pairs).most_common(CONFUSIONS))},
        )
    ]


def wrong(
    fitted: probe.Probe, vectors: NDArray[np.float32], labels: NDArray[np.intp]
) -> tuple[NDArray[np.float32], float]:
    """For each image the probability that its label is wrong, and the estimated share of wrong labels.

    A share s of the labels is taken to be replaced by any other class. An image whose own class has the held-out
    probability p then bears its label with (1 - s) p as a right one and s (1 - p) / (classes - 1) as a wrong one. s and
    the classifier's temperature are those with the greatest likelihood of all labels (expectation-maximisation).
    """
    cold = replace(fitted, temperature=1.0)
    some = seeding.generator(0, "label_errors", len(labels)).permutation(len(labels))[:SAMPLE]
    chosen = np.zeros(len(labels), bool)
    chosen[some] = True
    sample = [(logits[chosen[rows]], labels[rows][chosen[rows]]) for rows, logits in cold.held_out_scores(vectors)]
    logits = np.concatenate([part for part, _ in sample])
    given = np.concatenate([part for _, part in sample])
    _, temperature, share = max(_most_likely(float(factor) * fitted.temperature, logits, given) for factor in SHARPER)
    chance = np.zeros(len(labels), np.float32)
    for rows, probabilities in replace(fitted, temperature=temperature).held_out(vectors):
        own = probabilities[np.arange(len(rows)), labels[rows]]
        chance[rows] = _responsibility(own, max(share, FEWEST_WRONG), probabilities.shape[1])
    return chance, share


def _most_likely(
    temperature: float, logits: NDArray[np.float32], labels: NDArray[np.intp]
) -> tuple[float, float, float]:
    """The mean log-likelihood of the labels at this temperature, the temperature, and the share of wrong labels."""
    classes = logits.shape[1]
    own = softmax(np.float32(temperature) * logits)[np.arange(len(labels)), labels].astype(np.float64)
    share = 2 * FEWEST_WRONG
    for _ in range(ROUNDS):
        share = float(_responsibility(own, share, classes).mean())
    likelihood = np.log(np.maximum((1 - share) * own + share * (1 - own) / (classes - 1), 1e-30)).mean()
    return float(likelihood), temperature, share


def _responsibility(own: NDArray[np.floating], share: float, classes: int) -> NDArray[np.floating]:
    """Of the story that the label is wrong."""
    replaced = share * (1 - own) / (classes - 1)
    return replaced / np.maximum(replaced + (1 - share) * own, 1e-30)


def suspects(fitted: probe.Probe, vectors: NDArray[np.float32], labels: NDArray[np.intp], classes: int) -> Suspects:
    """Confident learning's off-diagonal (equation 1 of the paper), ranked by the probability of the label given.

    Two passes over the vectors: the first for the thresholds, a class's mean probability among its own images; the
    second for what reaches them. Nothing of size images × classes is kept.
    """
    confidence = np.zeros(len(labels), np.float32)
    right = np.zeros(len(labels), bool)
    for rows, probabilities in fitted.held_out(vectors):
        confidence[rows] = probabilities[np.arange(len(rows)), labels[rows]]
        right[rows] = probabilities.argmax(1) == labels[rows]
    counts = np.bincount(labels[fitted.folds != probe.NO_FOLD], minlength=classes)
    there = counts > 0
    thresholds = np.full(classes, np.inf)
    thresholds[there] = np.bincount(labels, confidence, classes)[there] / counts[there]
    recall = float((np.bincount(labels, right, classes)[there] / counts[there]).mean())

    seems = np.full(len(labels), -1, np.intp)
    for rows, probabilities in fitted.held_out(vectors):
        credible = np.where(probabilities >= thresholds - 1e-6, probabilities, -1)
        best = credible.argmax(1)
        counted = credible.max(1) >= 0
        doubted = counted & (best != labels[rows]) & (probabilities.argmax(1) != labels[rows])
        seems[rows[doubted]] = best[doubted]
    doubted = np.flatnonzero(seems >= 0)
    doubted = doubted[np.argsort(confidence[doubted], kind="stable")]
    return Suspects(doubted, seems[doubted], confidence, recall)


def _unheard(found: Suspects, evidence: dict) -> Finding:
    return Finding(
        check="label_errors",
        severity="info",
        message=f"labels were not judged: by these features only {100 * found.recall:.0f} % of the images are given "
        "their class (mean over the classes, images the probe has not seen)",
        hint="classes that differ in fine detail, or images unlike photographs, need a model trained on them",
        evidence=evidence,
    )
