"""A network that has not learned what there is to learn."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from torchstone.core.values import Finding
from torchstone.train.coach import Record
from torchstone.train.coach._curves import learned, short, warn

OPEN = 0.5
"""Share of what guessing leaves open that is still open at the end, on val and on the training images."""
GAP = 10.0
"""Points of top-1 that training is ahead of val at most: else the network does learn, but by heart."""


class UnderFitting:
    """The loss stays near that of guessing, on training images as on val."""

    requires: ClassVar[tuple[str, ...]] = ()
    explains: ClassVar[tuple[str, ...]] = ("never_predicted",)
    title: ClassVar[str] = "Under-fitting"

    def run(self, context: Record) -> list[Finding]:
        if short(context):
            return []
        train = float(np.nanmin(context.curve("train_loss"))) - context.floor
        explained = learned(context)
        top1, val_top1 = float(context.curve("train_top1")[-1]), float(context.curve("val_top1")[-1])
        if 1 - explained < OPEN or train < OPEN * context.guessing or top1 - val_top1 > GAP:
            return []
        recipe = context.recipe
        more = [""]
        if recipe.augment not in ("none", "light") or recipe.mixup or recipe.cutmix:
            more.append("less augmentation: --set augment=light --set mixup=0 --set cutmix=0")
        if recipe.freeze:
            more.append("let more layers learn: --set unfreeze=0.3")
        return warn(
            "under_fitting",
            f"only {100 * max(0.0, explained):.0f} % of what the labels say is explained on val (loss "
            f"{float(np.nanmin(context.curve('val_loss'))):.3f}, guessing gives {context.guessing:.3f}), and the "
            f"training images are not known better ({top1:.1f} % right): the network has learned too little, or the "
            "images do not tell the classes apart",
            f"{'; '.join(more)}; then a larger network (--model) or larger images (--image-size)",
            tries=(f"epochs={max(3 * recipe.epochs, 10)}",),
            explained=explained,
            guessing=context.guessing,
            train_top1=top1,
            val_top1=val_top1,
        )
