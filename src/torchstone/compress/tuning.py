"""Options of the steps that train a network further, and the recipe that they make."""

from __future__ import annotations

from pydantic import Field

from torchstone.core.contracts import StepConfig
from torchstone.data.augment import NamedPolicy
from torchstone.train import recipes
from torchstone.train.recipe import Recipe

REPAIR = Recipe(weight_decay=0.01, label_smoothing=0.05)
"""What makes up for a step that hurt. Unlike the recipe 'finetune' it lets the batch norms find their new statistics,
and all layers learn alike: each of them has lost something."""


class Tuning(StepConfig):
    """How a network goes on learning; a step says for how long."""

    lr: float = Field(default=4e-4, gt=0, description="peak learning rate")
    batch: int = Field(default=64, ge=2, description="images a step; as many as there are, at most this")
    augment: NamedPolicy = Field(default="light", description="a policy of data/augment")


def recipe_of(config: Tuning, epochs: int, images: int, start: Recipe | None = None) -> Recipe:
    """The recipe ``start`` (by default ``REPAIR``) for ``epochs`` over ``images`` images: AdamW, warm-up and cosine, as
    long as it says."""
    return recipes.changed(
        start or REPAIR,
        {
            "epochs": epochs,
            "lr": config.lr,
            "augment": config.augment,
            "batch": min(config.batch, images),
            "patience": max(1, epochs),
        },
    )
