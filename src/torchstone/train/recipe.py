"""What a training does, as one value: in code, in TOML, and behind ``--set``. The recipes themselves are in
``recipes``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from torchstone.core.values import Value
from torchstone.data import augment as augmentation
from torchstone.data import sampling
from torchstone.data.augment import PolicyName
from torchstone.data.sampling import SamplerName

Initial = Literal["default", "kaiming", "xavier", "dirac"]
Metric = Literal["top1", "loss", "macro_f1", "balanced_accuracy"]


class Recipe(Value):
    """Options of a training. Rates are for the batch given; epochs are passes over the training part; shares are of
    the whole training."""

    epochs: int = Field(default=30, ge=0, description="0: the weights stay as they were loaded")
    batch: int = Field(default=64, ge=2, description="images a step of the optimiser, over all processes")
    accumulate: int = Field(default=1, ge=1, description="parts in which a batch goes through the network, for memory")

    optimiser: Literal["sgd", "adamw", "radam"] = Field(default="adamw", description="sgd (Nesterov's), adamw or radam")
    lr: float = Field(default=2e-3, gt=0, description="peak learning rate")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="of SGD")
    weight_decay: float = Field(default=0.02, ge=0, description="not applied to norms and biases")
    layer_decay: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="factor on the rate from one layer group to the one before it; 1: all alike",
    )
    bias_rate: float = Field(
        default=1.0, gt=0, description="factor on the rate of norms and biases, such as 64 for a short training"
    )
    schedule: Literal["cosine", "one-cycle", "step", "constant"] = Field(
        default="cosine", description="cosine, one-cycle, step or constant: what the rate does after it has risen"
    )
    warmup: float = Field(default=0.1, ge=0, lt=1, description="share over which the rate rises")
    drops: tuple[float, ...] = Field(default=(0.5, 0.75), description="shares after which 'step' lowers the rate")
    drop_factor: float = Field(default=0.1, gt=0, lt=1, description="by which 'step' multiplies it")
    clip: float = Field(default=5.0, ge=0, description="largest norm of the gradient; 0: not clipped")
    ema: float = Field(default=0.0, ge=0, lt=1, description="decay of the weights' moving average; 0: none")

    loss: Literal["cross-entropy", "focal"] = Field(
        default="cross-entropy", description="cross-entropy, or focal: what is right already counts less"
    )
    focal_gamma: float = Field(default=2.0, ge=0, description="how much the focal loss favours what is hard")
    label_smoothing: float = Field(default=0.05, ge=0, lt=1, description="share of the target spread evenly")
    class_weights: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="let rare classes count more: beta of their effective number, such as 0.999; 0: all alike",
    )
    l1: float = Field(default=0.0, ge=0, description="weight of the sum of absolute weights (not norms and biases)")

    init: Initial = Field(
        default="default", description="default, kaiming, xavier or dirac: values that fresh layers begin with"
    )
    whiten: bool = Field(
        default=False, description="the first filters of a network without weights whiten the images' patches"
    )
    fit_head: bool = Field(
        default=False,
        description="a fresh head on weights from elsewhere begins as the recipe 'probe' would leave it, not at random",
    )
    dropout: float | None = Field(default=None, ge=0, lt=1, description="none: the network's own")
    drop_path: float | None = Field(default=None, ge=0, lt=1, description="stochastic depth; none: the network's own")
    freeze: tuple[str, ...] = Field(
        default=(), description="layers that keep their weights, by pattern: 'layer1.*'; 'backbone': all but the head"
    )
    unfreeze: float = Field(default=1.0, ge=0, le=1, description="share after which frozen layers train too; 1: never")
    freeze_norms: bool = Field(default=False, description="batch norms keep the statistics that they came with")
    frozen_features: bool = Field(
        default=False, description="compute the backbone's features once, and train the head on them alone"
    )

    augment: PolicyName = Field(default="light", description=augmentation.DESCRIPTION)
    mixup: float = Field(
        default=0.0, ge=0, description="blend images in pairs, and their labels: MixUp's alpha, such as 0.2; 0: off"
    )
    cutmix: float = Field(
        default=0.0, ge=0, description="paste a piece of one image into another: CutMix's alpha, such as 1; 0: off"
    )
    sampler: SamplerName = Field(default="shuffle", description=sampling.DESCRIPTION)
    first_size: float = Field(
        default=1.0, gt=0, le=1, description="share of the image's side that training begins with"
    )
    full_size: float = Field(default=0.7, gt=0, le=1, description="share after which images have their full side")

    precision: Literal["auto", "f32", "bf16", "f16"] = Field(
        default="auto", description="auto, f32, bf16 or f16; auto: BF16 where its products are not much slower"
    )
    metric: Metric = Field(
        default="top1", description="top1, loss, macro_f1 or balanced_accuracy: on val, by which the best epoch is kept"
    )
    patience: int = Field(default=10, ge=1, description="epochs without a better one before it stops")
    keep: int = Field(default=2, ge=1, exclude=True, description="checkpoints that are kept, besides the best epoch")
    checkpoint_seconds: float = Field(
        default=20.0,
        ge=0,
        exclude=True,
        description="between checkpoints (at least 20 times what writing one takes); 0: one every batch",
    )
    shard: bool | None = Field(
        default=None,
        exclude=True,
        description="in several processes each keeps a part of the optimiser's state; none: where that is large",
    )
    workers: int | None = Field(
        default=None,
        ge=0,
        exclude=True,  # changes no number: not part of an artifact's key
        description="processes that prepare batches; none: by the machine and what a batch costs",
    )
