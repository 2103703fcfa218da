"""A network that learns its training images by heart."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from torchstone.core.values import Finding
from torchstone.train.coach import Record
from torchstone.train.coach._curves import short, warn

RISE = 0.15
"""Of the loss on val above its lowest, as a share of that; and at least ``RISE_OPEN`` of what guessing leaves open."""
RISE_OPEN = 0.03
GAP = 15.0
"""Points of top-1 between training and val. Training's is counted on augmented images by weights that still change, so
that a healthy run has a small gap or none."""


class OverFitting:
    """The loss on val rises while that of training falls on; or training is far better than val."""

    requires: ClassVar[tuple[str, ...]] = ()
    title: ClassVar[str] = "Over-fitting"

    def run(self, context: Record) -> list[Finding]:
        if short(context):
            return []
        train, val = context.curve("train_loss"), context.curve("val_loss")
        if not np.isfinite(val).all():
            return []
        low = int(val.argmin())
        end = float(np.median(val[-3:]))
        rises = low < len(val) - 3 and end - val[low] >= max(RISE * val[low], RISE_OPEN * context.guessing)
        still_falls = train[-1] < 0.95 * train[low]
        of_train, of_val = float(context.curve("train_top1")[-1]), float(context.curve("val_top1")[-1])
        seen = []
        if rises and still_falls:
            seen.append(
                f"the loss on val rose from {val[low]:.3f} (epoch {low + 1}) to {end:.3f} while that of training fell "
                f"from {train[low]:.3f} to {train[-1]:.3f}"
            )
        if of_train - of_val >= GAP:
            seen.append(f"{of_train:.1f} % of the training images are right at the end, and {of_val:.1f} % of val")
        if not seen:
            return []
        decay = max(0.05, 2 * context.recipe.weight_decay)
        stronger = ("augment=strong",) if context.recipe.augment != "strong" else ("mixup=0.2",)
        return warn(
            "over_fitting",
            f"{'; '.join(seen)}: the network learns its training images by heart",
            f", then --set weight_decay={decay:g}, a smaller network, or more images",
            tries=stronger,
            lowest_val_loss=float(val[low]),
            lowest_epoch=low + 1,
            last_val_loss=end,
            train_top1=of_train,
            val_top1=of_val,
        )
