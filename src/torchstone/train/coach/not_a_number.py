"""A loss or a gradient that is no number."""

from __future__ import annotations

from typing import ClassVar

from torchstone.core.values import Finding
from torchstone.train.coach import Record
from torchstone.train.coach._curves import rate

MEANS = {
    "images": "the pixels themselves are not numbers: an augmentation of your own, or a network's input",
    "weights": "the step before has broken them: it was too long",
    "layer": "its values grew out of what this arithmetic can hold",
    None: "every layer's output is a number: the loss itself overflows",
}


class NotANumber:
    """The training stopped there; where the first one appeared."""

    requires: ClassVar[tuple[str, ...]] = ()

    def run(self, context: Record) -> list[Finding]:
        broken = context.broken
        if broken is None:
            return []
        tries = f"--set lr={rate(context.recipe.lr / 5)} --set clip=1"
        if context.recipe.precision == "f16":
            tries += " --set precision=bf16"
        if broken.fault == "images":
            tries = "look at these images, and at the policy: --set augment=light"
        where = f" It began {broken.where}:" if broken.where else ""
        return [
            Finding(
                check="not_a_number",
                severity="error",
                message=f"the {broken.what} was no number in batch {broken.batch} of epoch {broken.epoch}.{where} "
                f"{MEANS[broken.fault]}",
                hint=tries,
                evidence={"epoch": broken.epoch, "batch": broken.batch, "what": broken.what, "where": broken.where},
            )
        ]
