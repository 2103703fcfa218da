"""Whether a model from elsewhere answers better to another preprocessing than the one that was declared for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from torchstone.core import console
from torchstone.core.values import Artifact, Preprocess, RuntimeOptions
from torchstone.data.declared import likely_others
from torchstone.data.preprocess import prepare
from torchstone.judge import accuracy
from torchstone.runtimes import open_artifact

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEVEL = 0.95
"""Of all comparisons together: each of k others has 1 − (1 − LEVEL)/k, after Bonferroni, for the best of many is better
by chance alone."""
SAMPLES = 1000
"""Of more samples, so many are tried."""
BATCH = 16


@dataclass(frozen=True, kw_only=True)
class Tried:
    """How the samples were answered with one preprocessing."""

    change: str
    """What differs from the declared one."""
    right: int
    lost: int
    """Samples that it gets wrong and the declared one right."""
    gained: int
    images: int
    lower: float
    """Of what it gains over the declared one, as a fraction: bounds at a level split over all that were tried."""
    upper: float

    @property
    def better(self) -> bool:
        """Whether that is more than chance."""
        return self.lower > 0


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What the samples say of the declared preprocessing. ``others`` has the best first."""

    images: int
    right: int
    level: float
    others: tuple[Tried, ...]

    @property
    def warning(self) -> str | None:
        """What to think of it, where another preprocessing is better by more than chance."""
        best = self.others[0] if self.others else None
        if best is None or not best.better:
            return None
        share, other = 100 * self.right / self.images, 100 * best.right / self.images
        return (
            f"the declared preprocessing gets {share:.1f} % of {self.images:,} samples right, and {best.change} gets "
            f"{other:.1f} %: a gain of {other - share:.1f} points, {100 * best.lower:.1f} to {100 * best.upper:.1f} at "
            f"{100 * self.level:g} % over {len(self.others)} tried ({best.gained} gained, {best.lost} lost)"
        )


def trial(artifact: Artifact, contents: Sequence[bytes], labels: NDArray[np.int64]) -> Trial:
    """Answer labelled images, encoded, with the declared preprocessing of ``artifact``, whose file normalises nothing
    itself, and with what else is likely. The same images each time: the comparisons are paired."""
    pixels: dict[str, NDArray[np.uint8]] = {}

    def answered(preprocess: Preprocess, colour: str) -> NDArray[np.int64]:
        framing = preprocess.model_dump_json(exclude={"mean", "std"})
        if framing not in pixels:
            pixels[framing] = np.stack([prepare(content, preprocess) for content in contents])
        spec = artifact.input.model_copy(update={"colour": colour})
        seen = artifact.model_copy(update={"preprocess": preprocess, "input": spec})
        runner = open_artifact(seen, RuntimeOptions(batch=BATCH))
        starts = range(0, len(contents), BATCH)
        logits = [runner(pixels[framing][start : start + BATCH])["logits"] for start in starts]
        return np.concatenate(logits).argmax(axis=1)

    declared = answered(artifact.preprocess, artifact.input.colour)
    others = list(likely_others(artifact.preprocess, artifact.input.colour, normalised=artifact.input.normalised))
    tried = {
        one.change: answered(one.preprocess, one.colour)
        for one in console.track(others, "trying other preprocessings", total=len(others))
    }
    tried["class numbers one higher"] = declared - 1
    tried["class numbers one lower"] = declared + 1
    level = 1 - (1 - LEVEL) / len(tried)
    rows = [_compared(change, declared == labels, found == labels, level) for change, found in tried.items()]
    rows.sort(key=lambda row: -row.right)
    return Trial(images=len(contents), right=int((declared == labels).sum()), level=LEVEL, others=tuple(rows))


def _compared(change: str, declared: NDArray[np.bool_], other: NDArray[np.bool_], level: float) -> Tried:
    lost, gained, images = int((declared & ~other).sum()), int((~declared & other).sum()), len(declared)
    return Tried(
        change=change,
        right=int(other.sum()),
        lost=lost,
        gained=gained,
        images=images,
        lower=-accuracy.upper_bound(lost, gained, images, level),
        upper=accuracy.upper_bound(gained, lost, images, level),
    )
