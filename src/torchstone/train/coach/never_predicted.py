"""Classes that the network never answers."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from torchstone.core.values import Finding
from torchstone.data.findings import count_of, name_a_few
from torchstone.train.coach import Record
from torchstone.train.coach._curves import warn

IMAGES = 5
"""Of a class on val, at least: fewer can all be missed by chance."""


class NeverPredicted:
    """At the epoch that was kept, no image of val was given the class, though it has some."""

    requires: ClassVar[tuple[str, ...]] = ()
    title: ClassVar[str] = "Classes never predicted"

    def run(self, context: Record) -> list[Finding]:
        at = context.best_epoch - 1
        if not 0 <= at < len(context.predicted):
            return []
        found = context.predicted[at]
        never = np.flatnonzero((context.labels >= IMAGES) & (found == 0)).tolist()
        if not never:
            return []
        answered = np.flatnonzero(found)
        names = name_a_few(f"'{context.classes[label]}' ({context.labels[label]} images)" for label in never)
        some = len(answered) > len(context.labels) // 2
        if not some:
            seen = (
                f"{count_of(len(answered), 'class')} of {len(context.labels)} came out on val at all: the network did "
            )
            seen += f"not learn to tell them apart. Never: {names}"
        else:
            seen = f"never predicted on val: {names}. Rare classes are the cheapest to ignore"
        return warn(
            "never_predicted",
            seen,
            ", or --set class_weights=0.99; and more images of them" if some else "; and more images of them",
            tries=("sampler=balanced",),
            classes=[context.classes[label] for label in never],
            images={context.classes[label]: int(context.labels[label]) for label in never},
        )
