"""Structured pruning: whole channels leave, so that every runtime gets a smaller dense network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from torchstone.compress.pruning_options import Pruning
from torchstone.core.artifact import noted
from torchstone.core.contracts import Step, StepContext
from torchstone.core.errors import ChainError
from torchstone.core.values import Artifact


class Prune(Step):
    """``prune=RATIO``: that share of every layer's channels, the weakest of their coupled group (DepGraph, Fang et al.
    2023). Accuracy falls until ``finetune`` follows; ``iterate`` does both in rounds.

    ``prune:macs=0.5`` takes as few channels as leave half of the multiplications. A target in milliseconds is not
    offered: what a step takes here, alone and unpaired, is not what the judge will measure.

    Widths are rounded to multiples of ``round_to``, without which a runtime's kernels hardly get faster although the
    multiplications halve. Left out, it is 16, or the largest smaller power of two that still lets the narrowest layer
    shrink.
    """

    version = 2
    accepts = ("torch",)
    requires = ("torch", "safetensors", "torch_pruning")
    value_option = "ratio"
    place = "shape"

    class Config(Pruning):
        ratio: float = Field(default=0.3, gt=0, lt=1, description="share of the channels that leaves")
        macs: float | None = Field(
            default=None, gt=0, lt=1, description="share of the multiply-accumulates that stays, instead of a ratio"
        )

    def check(self, config: Any, target: str | None) -> None:
        if {"ratio", "macs"} <= config.model_fields_set:
            raise ChainError("'prune' was given a ratio and a share of MACs", hint="give one of them")

    def ranges(self, artifact: Artifact) -> Mapping[str, Any] | None:
        return {
            "ratio": {"low": 0.1, "high": 0.6, "step": 0.1},
            "importance": ["magnitude", "taylor"],
            "scope": ["uniform", "global"],
        }

    def apply(
        self, artifact: Artifact, context: StepContext, config: Any, target: str | None, out_dir: Path
    ) -> Artifact:
        from torchstone.compress import pruning
        from torchstone.models import cost, store
        from torchstone.train import stage

        model, crop = store.load(artifact), artifact.preprocess.crop
        if config.macs is None:
            made = pruning.by_ratio(model, config.ratio, config, context.train, crop)
        else:
            macs = int(config.macs * cost.macs_of(model, crop))
            made = pruning.to_macs(model, macs, config, context.train, crop)
        saved = stage.save_torch(made, artifact, context.calib, out_dir)
        return noted(saved, f"prune: {pruning.described(model, made, crop)}")
