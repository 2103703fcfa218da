"""Classes with few images, absolutely or beside the others."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from torchstone.audit import AuditContext
from torchstone.core.values import Finding
from torchstone.data.findings import count_of, name_a_few

RARE = 50
"""Images below which a class is rare: a fifth of them, as its test images, tells its recall to ± 30 points."""

RATIO = 10
"""Largest class to smallest one from which a model can do well by ignoring the small one."""


class Imbalance:
    """Rare classes, and classes that are few beside the largest. Those without any image are missing, not rare."""

    requires: ClassVar[tuple[str, ...]] = ()

    def run(self, context: AuditContext) -> list[Finding]:
        classes = context.catalog.classes
        counted = np.bincount(context.column("label"), minlength=len(classes)).tolist()
        counts = {name: count for name, count in zip(classes, counted, strict=True) if count}
        by_size = sorted(counts, key=lambda name: counts[name])
        largest = counts[by_size[-1]]
        found = []
        rare = [name for name in by_size if counts[name] < RARE]
        if rare:
            found.append(
                Finding(
                    check="imbalance",
                    severity="warning",
                    message=f"{count_of(len(rare), 'class')} with fewer than {RARE} images: "
                    f"{name_a_few(f'{name} ({counts[name]})' for name in rare)}",
                    hint="add images: too few are left to test on for any statement about these classes",
                    evidence={"counts": {name: counts[name] for name in rare}},
                )
            )
        few = [name for name in by_size if counts[name] * RATIO <= largest]
        if few:
            times = largest / counts[few[0]]
            found.append(
                Finding(
                    check="imbalance",
                    severity="warning",
                    message=f"class '{by_size[-1]}' has {largest:,} images, {times:.0f} times "
                    f"as many as {name_a_few(f'{name} ({counts[name]:,})' for name in few)}",
                    hint="top-1 hardly counts the small classes: look at the recall of each class",
                    evidence={"largest": largest, "smallest": counts[few[0]]},
                )
            )
        return found
