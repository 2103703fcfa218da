"""Images that are far from all others."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from torchstone.audit import AuditContext
from torchstone.core import seeding
from torchstone.core.values import Finding

if TYPE_CHECKING:
    from numpy.typing import NDArray

FEWEST = 100
"""Images below which 'far' has no meaning."""

REFERENCES = 4_000
"""Images, drawn at random, that each image is compared with: time grows with the images, not with their square."""

NEIGHBOURS = 50
"""Neighbours (a fiftieth of the references where there are fewer) whose mean distance counts: a few odd images that are
alike, ten blank ones, would hide each other from the nearest neighbour. Measured on photographs of flowers with 8 odd
images of a kind among 3,710: the share of flowers that a blank image is farther than is 0.97 by 50 neighbours, 0.08 by
10, 0.00 by 5."""

FAR = 2.0
"""Standard deviations (by the median and its absolute deviation, of the logarithm) above the median distance."""

VERY_FAR = 5.0
"""From here on it is a warning. Photographs of two sets went up to 3.8; the 'image not found' among one had 6.0."""

CHUNK = 2_048


class Outliers:
    """Ranks images by their mean distance to their nearest neighbours, in the features of a frozen network: pictures of
    something else, scans, screenshots, test charts. It names the farthest; in any set, one in a hundred is far."""

    requires: ClassVar[tuple[str, ...]] = ()

    def run(self, context: AuditContext) -> list[Finding]:
        if context.features is None or context.catalog.images < FEWEST:
            return []
        far = deviations(distances(context.features.vectors))
        rows = np.flatnonzero(far > FAR)
        if not len(rows):
            return []
        rows = rows[np.argsort(-far[rows], kind="stable")]
        return [
            context.about(
                "outliers",
                rows,
                "far from all others",
                severity="warning" if far[rows[0]] > VERY_FAR else "info",
                hint="look at the first ones: do they show what the model will be asked about?",
                scores=tuple(round(float(score), 3) for score in far[rows]),
                decision="review",
                evidence={"features": context.features.name, "deviations": FAR},
            )
        ]


def distances(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32[n]: the mean distance of each of float32[n, d] to its nearest neighbours among the references."""
    count = len(vectors)
    chosen = np.sort(seeding.generator(0, "outliers", count).permutation(count)[:REFERENCES])
    near = max(1, min(NEIGHBOURS, len(chosen) // NEIGHBOURS))
    references = np.asarray(vectors[chosen])
    squares = (references**2).sum(1)
    found = np.empty(count, np.float32)
    for start in range(0, count, CHUNK):
        part = np.asarray(vectors[start : start + CHUNK])
        apart = squares + (part**2).sum(1)[:, None] - 2 * (part @ references.T)
        own = np.flatnonzero((chosen >= start) & (chosen < start + len(part)))
        apart[chosen[own] - start, own] = np.inf  # itself
        nearest = np.partition(apart, near - 1, axis=1)[:, :near]
        found[start : start + len(part)] = np.sqrt(np.maximum(nearest, 0)).mean(1)
    return found


def deviations(distance: NDArray[np.float32]) -> NDArray[np.float64]:
    """How many standard deviations each logarithm lies above their median; 0 for all where most are equal."""
    logarithms = np.log(np.maximum(distance.astype(np.float64), np.finfo(np.float32).tiny))
    above = logarithms - np.median(logarithms)
    spread = 1.4826 * np.median(np.abs(above))  # the standard deviation of a normal distribution with that median
    return above / spread if spread > 1e-9 else np.zeros(len(distance))
