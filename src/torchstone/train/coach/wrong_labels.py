"""Training images that the network cannot make agree with their label."""

from __future__ import annotations

from typing import ClassVar

from torchstone.core.values import Finding
from torchstone.data.findings import count_of, name_a_few
from torchstone.train.coach import Record
from torchstone.train.coach._curves import learned, short, warn

LOSS = 1.0
"""Late loss, as a share of that of guessing, from which on an image contradicts its label."""
TIMES = 3.0
"""And at least so many times the median image's: before the network has settled, many images have a high loss."""
LEARNED = 0.6
"""What has to be explained on val before the network's word counts."""
FEW = 3
"""Images, or ``SHARE`` of all: some hard images are in every set."""
SHARE = 0.01
OF_ERRORS = 0.25
"""And of the share of val that it gets wrong: a network that errs on new images finds some of its own as hard."""


class WrongLabels:
    """Images with a high loss late in the training that are given another class."""

    requires: ClassVar[tuple[str, ...]] = ()

    def run(self, context: Record) -> list[Finding]:
        if short(context) or learned(context) < LEARNED:
            return []
        limit = max(LOSS * context.guessing + context.floor, TIMES * context.typical_loss)
        found = [one for one in context.suspects if one.loss >= limit and one.predicted != one.label]
        high = [one for one in context.suspects if one.loss >= limit]
        # Not all of them were asked about: as many of the others seem wrong as of these.
        count = round(int((context.late >= limit).sum()) * len(found) / max(1, len(high)))
        errs = 1 - float(context.curve("val_top1")[context.best_epoch - 1]) / 100
        if count <= max(FEW, SHARE * len(context.late), OF_ERRORS * errs * len(context.late)):
            return []
        classes = context.classes
        named = name_a_few(
            f"{one.item} ('{classes[one.label]}', looks like '{classes[one.predicted]}')" for one in found
        )
        (finding,) = warn(
            "wrong_labels",
            f"{count_of(count, 'training image')} kept a loss above {limit:.1f} to the end (the median "
            f"image has {context.typical_loss:.2f}) and look like another class: {named}. Usually their "
            "labels are wrong",
            "look at them; 'torchstone audit DATA' finds such images in all parts, before anything is trained",
            images=count,
            median_loss=context.typical_loss,
        )
        return [
            finding.model_copy(
                update={
                    "items": tuple(one.item for one in found),
                    "scores": tuple(round(one.loss, 4) for one in found),
                    "suggested": tuple(classes[one.predicted] for one in found),
                }
            )
        ]
