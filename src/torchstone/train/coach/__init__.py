"""The coach says in words what a training shows: every check of the registry, each in a file of its own.

A check sees a ``Record`` and answers with Findings: what was seen, with its numbers in the evidence; what that usually
means; as the hint what to try, as one would type it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from torchstone.core import registry
from torchstone.core.errors import ConfigError
from torchstone.core.values import Finding

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from torchstone.train.recipe import Recipe

__all__ = ["SYMPTOMS", "Broken", "Layer", "Record", "Suspect", "diagnose", "of_the_model", "title"]

SYMPTOMS = ("plateau", "under_fitting", "never_predicted")
"""What a rate or a network that is wrong also looks like."""
BESIDE = ("compute_bound", "data_bound", "small_val")
"""What speaks of the training's speed and of its measure, and not of what the network has learned."""
FEW = 3
"""Epochs below which a curve says nothing: a smoke run is not a bad training."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """The weights of one layer over the epochs, by a few steps of each. NaN: it was frozen, or not looked at."""

    name: str
    kind: str
    """Its class: ``Conv2d``."""
    gradient: Sequence[float]
    """Root mean square over its weights, before the gradient was clipped; the median of the steps."""
    update: Sequence[float]
    """Length of one step against that of the weights; the median of the steps."""
    silent: Sequence[float]
    """Share of its units (channels) that no image of the last few hundred got a gradient through."""

    @property
    def title(self) -> str:
        return f"'{self.name}' ({self.kind})" if self.name else self.kind


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """A training image with a high loss late in the training."""

    item: str
    label: int
    predicted: int
    """By the weights that were kept."""
    loss: float
    """Late mean, in nats."""


@dataclass(frozen=True, kw_only=True)
class Broken:
    """Where a training stopped being numbers."""

    epoch: int
    """From 1."""
    batch: int
    """Of that epoch, from 1."""
    what: str
    """'loss' or 'gradient'."""
    where: str | None
    """The place, as a phrase; None where every place that was looked at holds numbers."""
    fault: str | None
    """'images', 'weights' or 'layer'; None as above."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """What is known of a training when it is over."""

    recipe: Recipe
    classes: Sequence[str]
    history: Sequence[Mapping[str, float]]
    """A row an epoch, as ``history.parquet`` has them."""
    best_epoch: int = 0
    """From 1; 0: none."""
    labels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """int64[classes]: images of each class on val."""
    predicted: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    """int64[epochs, classes]: how often each class was predicted on val."""
    layers: Sequence[Layer] = ()
    """In the network's order."""
    late: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    """float32[n]: late losses (nats) of the training images, in no order; of those of which they are known."""
    suspects: Sequence[Suspect] = ()
    """The highest late losses, the highest first."""
    broken: Broken | None = None
    bf16_pays: bool = False
    """Whether the processor multiplies BF16 itself, and is not much slower with it."""

    @property
    def epochs(self) -> int:
        return len(self.history)

    @property
    def typical_loss(self) -> float:
        """Median late loss of a training image; NaN where none is known."""
        return float(np.median(self.late)) if len(self.late) else math.nan

    def curve(self, column: str) -> NDArray[np.float64]:
        """float64[epochs]: a column of the history, NaN where a row has none."""
        return np.array([float(row.get(column, math.nan)) for row in self.history])

    @property
    def guessing(self) -> float:
        """Loss (nats) of who knows how often each class comes and nothing else; of val."""
        shares = self.labels[self.labels > 0] / max(1, self.labels.sum())
        return float(-(shares * np.log(shares)).sum())

    @property
    def floor(self) -> float:
        """The training loss (nats) of a network that is right and just as sure as the targets' smoothing allows."""
        spread, classes = self.recipe.label_smoothing, max(2, len(self.classes))
        if not spread or self.recipe.loss != "cross-entropy":
            return 0.0
        other = spread / classes
        top = 1 - spread + other
        return -top * math.log(top) - (classes - 1) * other * math.log(other)

    def unexplained(self, losses: NDArray[np.float64]) -> NDArray[np.float64]:
        """Losses as shares of what guessing would give: 1 is nothing learned, 0 is all."""
        return losses / self.guessing if self.guessing > 0 else np.full_like(losses, math.nan)


def title(check: str) -> str:
    """What the check of that name looks for, as a heading: its ``title``, or else its name in plain letters."""
    try:
        named = getattr(registry.training_checks.get(check), "title", None)
    except (ConfigError, ImportError):  # the plug-in that found it is not installed here
        named = None
    return named or check.replace("_", " ").capitalize()


def of_the_model(finding: Finding) -> bool:
    """Whether a finding is a reason to train again before anything is built on this model."""
    return finding.severity != "info" and finding.check not in BESIDE


def diagnose(record: Record) -> list[Finding]:
    """What every check says of this training: the gravest first, each followed by what it explains
    (``Finding.follows``, without a hint of its own: what is to be tried is said once). A check names in ``explains``,
    where it has that, the checks whose findings only follow from its own; the relation runs one way and reaches on."""
    checks = registry.training_checks
    found = {name: checks.ready(name).run(record) for name in checks.names()}
    found = {name: findings for name, findings in found.items() if findings}
    explained: dict[str, tuple[str, ...]] = {name: getattr(checks.get(name), "explains", ()) for name in found}
    direct = {name: set(others) & found.keys() for name, others in explained.items()}
    reached = {name: _reached(name, direct) for name in found}

    def of_its_own(name: str) -> bool:
        return not any(name in others and cause not in reached[name] for cause, others in reached.items())

    roots = sorted(filter(of_its_own, found), key=lambda name: (found[name][0].grave, name in SYMPTOMS))
    told: list[Finding] = []
    left = set(found) - set(roots)
    for root in roots:
        told += found[root]
        its = sorted(left & reached[root], key=lambda name: (name in SYMPTOMS, -len(reached[name]), name))
        told += [
            one.model_copy(update={"follows": root, "hint": None, "tries": ()}) for name in its for one in found[name]
        ]
        left -= reached[root]
    return told


def _reached(name: str, direct: Mapping[str, set[str]]) -> set[str]:
    """What follows from ``name``, however far."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        waiting += direct[waiting.pop()] - found
        found |= set(waiting)
    return found - {name}
