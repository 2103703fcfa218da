"""What stays the same through all epochs of a training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from torchstone.core.contracts import ImageSet
from torchstone.models.deployable import Deployable
from torchstone.train.device import arithmetic
from torchstone.train.distributed import Ranks
from torchstone.train.recipe import Recipe
from torchstone.train.teaching import Teaching


@dataclass(frozen=True, kw_only=True)
class Job:
    """A training: its network, its images, its options."""

    model: Deployable
    train: ImageSet
    val: ImageSet
    recipe: Recipe
    seed: int
    directory: Path
    """Of its checkpoints."""
    classes: Sequence[str]
    outputs: int
    """Logits of the network."""
    crop: int
    """Pixels a side of the images at full size."""
    device: torch.device
    policy_source: bytes | None
    """Of an augmentation policy in a file (``augment.source_of``)."""
    ranks: Ranks = field(default_factory=Ranks)
    """This process among those that train together."""
    teaching: Teaching | None = None
    """What it learns from beside the labels."""

    @property
    def steps(self) -> int:
        """Batches an epoch; the last, smaller one is left out."""
        return len(self.train) // self.recipe.batch

    @property
    def all_steps(self) -> int:
        """Batches of the whole training."""
        return self.recipe.epochs * self.steps

    @property
    def identity(self) -> dict[str, Any]:
        """What makes it another training when it differs; JSON-able."""
        return {
            **self.recipe.model_dump(mode="json"),
            "seed": self.seed,
            "images": len(self.train),
            "arithmetic": " ".join(arithmetic(self.recipe.precision)),
            **({"teaching": self.teaching.identity} if self.teaching else {}),
        }
