"""Structured pruning: whole channels leave, so that every runtime gets a smaller dense network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from torchstone.core.contracts import Step, StepConfig, StepContext
from torchstone.core.errors import ChainError
from torchstone.core.values import Artifact

if TYPE_CHECKING:
    from torch import nn

VECTOR = 16
"""Channels that one AVX-512 register of float32 holds; INT8 kernels come in multiples of it as well."""


class Prune(Step):
    """``prune=RATIO``: that share of every layer's channels, the weakest by the norm of their coupled group
    (DepGraph, Fang et al. 2023). Accuracy falls until ``finetune`` follows.

    Widths are rounded to multiples of ``round_to``, without which a runtime's kernels hardly get faster although the
    multiplications halve. Left out, it is 16, or the largest smaller power of two that still lets the narrowest layer
    shrink.
    """

    version = 1
    accepts = ("torch",)
    requires = ("torch", "safetensors", "torch_pruning")
    value_option = "ratio"

    class Config(StepConfig):
        ratio: float = Field(default=0.3, gt=0, lt=1, description="share of every layer's channels that leaves")
        round_to: int | None = Field(default=None, ge=1, description="channels that widths are a multiple of")

    def apply(
        self, artifact: Artifact, context: StepContext, config: Any, target: str | None, out_dir: Path
    ) -> Artifact:
        import torch
        import torch_pruning

        from torchstone.models import store, zoo
        from torchstone.train import stage

        model = store.load(artifact)
        _, head = zoo.head(model.network)
        before = zoo.parameters(model.network)
        example = zoo.input_like(artifact.preprocess.crop, artifact.preprocess.channels)
        try:
            pruner = torch_pruning.pruner.BasePruner(
                model.network,
                example,
                importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
                pruning_ratio=config.ratio,
                ignored_layers=[head],
                round_to=config.round_to or _rounding(model.network, head, config.ratio),
            )
            pruner.step()
            with torch.inference_mode():
                model.network.eval()(example)
        except (RuntimeError, ValueError, AttributeError, KeyError, IndexError) as error:
            raise ChainError(
                f"'{artifact.architecture}' cannot be pruned: {error}",
                hint="choose another model, or leave 'prune' out",
            ) from None
        if zoo.parameters(model.network) == before:
            raise ChainError(
                f"prune={config.ratio:g} leaves every layer of '{artifact.architecture}' as wide as it was",
                hint="prune more, or set a smaller step: prune=0.3:round_to=1",
            )
        return stage.save_torch(model, artifact, context.calib, out_dir)


def _rounding(network: nn.Module, head: nn.Module, ratio: float) -> int:
    """The largest power of two, 16 at most, that still lets the narrowest layer lose ``ratio`` of its channels."""
    from torch import nn

    widths = [
        module.weight.shape[0]
        for module in network.modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and module is not head
    ]
    step = VECTOR
    while step > 1 and step > ratio * min(widths, default=1):
        step //= 2
    return step
