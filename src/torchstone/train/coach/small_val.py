"""Too few images on val to tell a good epoch from a lucky one."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import ClassVar

import numpy as np

from torchstone.core.values import Finding
from torchstone.evaluate import metrics
from torchstone.train.coach import Record
from torchstone.train.coach._curves import warn

DIFFER = 0.05
"""Top-1, as a fraction, by which an epoch has to be better before it matters which one is kept."""
DISAGREE = 0.1
"""Share of images on which two epochs of one training differ in being right, about."""
SURE = 0.95
"""Of telling such epochs apart."""


class SmallVal:
    """Epochs among which the best was chosen lie so close together that on so few images it is chance which one leads.

    Two epochs answer the same n images, so that their difference has a standard error of √(``DISAGREE`` / n). Of two
    that are ``DIFFER`` apart the better one leads in ``SURE`` of all cases with n = (z / ``DIFFER``)² · ``DISAGREE``.
    """

    requires: ClassVar[tuple[str, ...]] = ()
    title: ClassVar[str] = "Small val"

    def run(self, context: Record) -> list[Finding]:
        images, metric = int(context.labels.sum()), context.recipe.metric
        z = NormalDist().inv_cdf(SURE)
        enough = math.ceil((z / DIFFER) ** 2 * DISAGREE)
        if metric == "loss" or not 0 < images < enough or not 1 <= context.best_epoch <= context.epochs:
            return []
        scores = context.curve(f"val_{metric}")
        kept, reach = scores[context.best_epoch - 1], 100 * z * math.sqrt(DISAGREE / images)
        near = np.flatnonzero(scores >= kept - reach) + 1
        near = near[near != context.best_epoch]
        if not len(near):
            return []
        top1 = context.curve("val_top1")[context.best_epoch - 1]
        low, high = (100 * end for end in metrics.interval(top1 / 100, images))
        others = f"epoch {near[0]} lies" if len(near) == 1 else f"{len(near)} other epochs lie"
        return warn(
            "small_val",
            f"val has {images} images, of which each is {100 / images:.1f} points: {top1:.1f} % of them right stands "
            f"for anything from {low:.1f} to {high:.1f} %, and that epoch {context.best_epoch} was the best is partly "
            f"luck: {others} within {reach:.0f} points of it",
            f"; the loss, which every image moves a little, tells epochs apart with fewer. {enough} val images would "
            "do: of images that bring no val of their own, a tenth becomes val",
            tries=("metric=loss",),
            images=images,
            enough=enough,
            low=low,
            high=high,
            near=near.tolist(),
        )
