"""Images whose label is probably wrong."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from torchstone.audit import AuditContext, probe
from torchstone.core.values import Finding
from torchstone.data.units import units

if TYPE_CHECKING:
    from numpy.typing import NDArray

FEWEST = 10
"""Different pictures of a class, below which its labels are not judged: the probe hardly knows the class."""

KNOWS = 0.25
"""Least held-out recall, averaged over the classes, on a scale from 0 (guessing) to 1, at which the probe is heard."""

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
    noise: float
    """Estimated share of wrong labels."""


class LabelErrors:
    """Confident learning (Northcutt, Jiang and Chuang 2021) on the features of a frozen network: a linear probe gives
    each image's classes a probability without having seen it, or any other image of the same picture or group. An
    image is suspect when another class is as probable for it as that class usually is for its own images."""

    requires: ClassVar[tuple[str, ...]] = ()

    def run(self, context: AuditContext) -> list[Finding]:
        if context.features is None or len(context.catalog.classes) < 2:
            return []
        labels = context.column("label").astype(np.intp)
        together = units(context.table, 0, "label_errors")
        pictures = np.bincount(labels[np.unique(together.of_row, return_index=True)[1]])
        if np.count_nonzero(pictures >= FEWEST) < 2:
            return []
        classes = context.catalog.classes
        folds = probe.folds_of(labels, together)
        fitted = probe.fit(context.features.vectors, labels, folds, len(classes))
        found = suspects(fitted, context.features.vectors, labels, len(classes))
        evidence = {"features": context.features.name, "held_out_recall": round(found.recall, 4)}
        if found.recall - 1 / len(classes) < KNOWS * (1 - 1 / len(classes)):
            return [_unheard(found, evidence)]
        judged = pictures[labels[found.rows]] >= FEWEST
        rows, suggested = found.rows[judged], found.suggested[judged]
        if not len(rows):
            return []
        pairs = Counter(
            f"{classes[given]} → {classes[seems]}" for given, seems in zip(labels[rows], suggested, strict=True)
        )
        return [
            context.about(
                "label_errors",
                rows,
                "whose label is probably wrong",
                notes=[
                    f"{classes[given]}, seems {classes[seems]}"
                    for given, seems in zip(labels[rows], suggested, strict=True)
                ],
                hint="look at them, the first ones first, and move the files that lie in the wrong class",
                suggested=tuple(classes[seems] for seems in suggested),
                scores=tuple(round(float(score), 4) for score in found.confidence[rows]),
                decision="review",
                evidence={
                    **evidence,
                    "estimated_share_of_wrong_labels": round(found.noise, 4),
                    "pairs": dict(pairs.most_common(CONFUSIONS)),
                },
            )
        ]


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
    counts = np.bincount(labels, minlength=classes)
    there = counts > 0
    thresholds = np.full(classes, np.inf)
    thresholds[there] = np.bincount(labels, confidence, classes)[there] / counts[there]
    recall = float((np.bincount(labels, right, classes)[there] / counts[there]).mean())

    joint = np.zeros((classes, classes), np.int64)
    seems = np.full(len(labels), -1, np.intp)
    for rows, probabilities in fitted.held_out(vectors):
        credible = np.where(probabilities >= thresholds - 1e-6, probabilities, -1)
        best = credible.argmax(1)
        counted = credible.max(1) >= 0
        np.add.at(joint, (labels[rows][counted], best[counted]), 1)
        doubted = counted & (best != labels[rows]) & (probabilities.argmax(1) != labels[rows])
        seems[rows[doubted]] = best[doubted]
    doubted = np.flatnonzero(seems >= 0)
    doubted = doubted[np.argsort(confidence[doubted], kind="stable")]
    return Suspects(doubted, seems[doubted], confidence, recall, _noise(joint, counts))


def _noise(joint: NDArray[np.int64], counts: NDArray[np.int64]) -> float:
    """Share of wrong labels by the confident joint, calibrated so that its rows add up to the classes' images."""
    sure = joint.sum(1)
    wrong = 1 - np.diag(joint) / np.maximum(sure, 1)
    return float((wrong * counts)[sure > 0].sum() / max(1, counts[sure > 0].sum()))


def _unheard(found: Suspects, evidence: dict) -> Finding:
    return Finding(
        check="label_errors",
        severity="info",
        message=f"labels were not judged: by these features only {100 * found.recall:.0f} % of the images are given "
        "their class (mean over the classes, images the probe has not seen)",
        hint="classes that differ in fine detail, or images unlike photographs, need a model trained on them",
        evidence=evidence,
    )
