"""What a training run does, as one value. Most options are settings of a run, too (``config.Settings``)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from torchstone.core.values import Value
from torchstone.data.augment import PolicyName
from torchstone.data.sampling import SamplerName


class Recipe(Value):
    """Options of the training loop. Rates are for the batch given; epochs are passes over the training part."""

    epochs: int = Field(default=30, ge=0, description="0: the weights stay as they were loaded")
    batch: int = Field(default=64, ge=2)
    optimiser: Literal["sgd", "adamw"] = "adamw"
    lr: float = Field(default=2e-3, gt=0, description="peak learning rate")
    weight_decay: float = Field(default=0.02, ge=0, description="not applied to norms and biases")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="of SGD, which is Nesterov's")
    warmup: float = Field(default=0.1, ge=0, lt=1, description="share of all steps over which the rate rises")
    label_smoothing: float = Field(default=0.05, ge=0, lt=1)
    clip: float = Field(default=5.0, gt=0, description="largest norm of the gradient")
    augment: PolicyName = Field(default="light", description="a policy of data/augment")
    mixup: float = Field(default=0.0, ge=0, description="α of MixUp's Beta distribution; 0: off")
    cutmix: float = Field(default=0.0, ge=0, description="α of CutMix's; with both, a batch gets one of them at random")
    sampler: SamplerName = Field(default="shuffle", description="which images an epoch shows (data/sampling.py)")
    class_weights: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="β of the effective number of images, by whose inverse the loss is weighted",
    )
    precision: Literal["auto", "f32", "bf16"] = "auto"
    patience: int = Field(
        default=10, ge=1, description="epochs without a better val top-1 (or loss at the same) before it stops"
    )
    workers: int | None = Field(
        default=None,
        ge=0,
        exclude=True,  # changes no number: not part of an artifact's key
        description="processes that prepare batches; None: by the machine and what a batch costs",
    )


def scratch() -> Recipe:
    """For fresh weights: a full schedule at a high rate."""
    return Recipe()


def finetune() -> Recipe:
    """For weights trained elsewhere: few epochs at a low rate."""
    return Recipe(epochs=4, batch=32, lr=4e-4, weight_decay=0.01, label_smoothing=0.05, patience=3)
