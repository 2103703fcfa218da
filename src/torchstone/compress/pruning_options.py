"""Options of the steps that prune: by what channels are ranked. No heavy import here: chains are checked with it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from torchstone.core.contracts import StepConfig


class Pruning(StepConfig):
    """How to prune; a step says how much."""

    importance: Literal["magnitude", "taylor", "bn_scale"] = Field(
        default="magnitude",
        description="magnitude: the norm of a channel's weights; taylor: how much the loss would change, to first "
        "order; bn_scale: the factors of its batch norms",
    )
    scope: Literal["uniform", "global"] = Field(
        default="uniform",
        description="uniform: the same share of every layer; global: the weakest of the whole network",
    )
    round_to: int | None = Field(default=None, ge=1, description="channels that widths are a multiple of")
