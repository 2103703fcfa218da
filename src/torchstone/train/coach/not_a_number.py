"""A loss or a gradient that is no number."""

from __future__ import annotations

from typing import ClassVar

from torchstone.core.values import Finding
from torchstone.train.coach import SYMPTOMS, Record
from torchstone.train.coach._curves import lower

MEANS = {
    "images": "the pixels themselves are not numbers: an augmentation of your own, or a network's input",
    "weights": "the step before has broken them: it was too long",
    "layer": "its values grew out of what this arithmetic can hold",
    None: "every layer's output is a number: the loss itself overflows",
}


class NotANumber:
    """The training stopped there; where the first one appeared."""

    requires: ClassVar[tuple[str, ...]] = ()
    explains: ClassVar[tuple[str, ...]] = (
        "rate_too_high", "exploding_gradients", "divergence", "dead_relus", *SYMPTOMS,
    )  # fmt: skip

    def run(self, context: Record) -> list[Finding]:
        broken = context.broken
        if broken is None:
            return []
        tries = [f"lr={lower(context)}", "clip=1"]
        if context.recipe.precision == "f16":
            tries.append("precision=bf16")
        hint = " ".join(f"--set {option}" for option in tries)
        if broken.fault == "images":
            tries, hint = [], "look at these images, and at the policy: --set augment=light"
        where = f" It began {broken.where}:" if broken.where else ""
        return [
            Finding(
                check="not_a_number",
                severity="error",
                message=f"the {broken.what} was no number in batch {broken.batch} of epoch {broken.epoch}.{where} "
                f"{MEANS[broken.fault]}",
                hint=hint,
                tries=tuple(tries),
                evidence={"epoch": broken.epoch, "batch": broken.batch, "what": broken.what, "where": broken.where},
            )
        ]
