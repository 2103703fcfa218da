"""Unstructured pruning: single weights become zero, wherever they are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from torchstone.core import files
from torchstone.core.artifact import noted
from torchstone.core.contracts import Step, StepConfig, StepContext
from torchstone.core.values import Artifact

if TYPE_CHECKING:
    import torch
    from torch import nn


class Sparsify(Step):
    """``sparsify=SHARE``: that share of all weights, the smallest in magnitude, becomes zero, and nothing is left in
    the file that remembers which.

    No runtime here multiplies less for it: the zeros are stored and computed like any other number, so that neither the
    file nor the time shrinks. What shrinks is the gzipped file, and this step says by how much. ``finetune`` mends the
    accuracy and fills the zeros again. To be smaller and faster, ``prune``.
    """

    version = 1
    accepts = ("torch",)
    requires = ("torch", "safetensors")
    value_option = "share"
    place = "shape"

    class Config(StepConfig):
        share: float = Field(default=0.5, gt=0, lt=1, description="of the weights that become zero")
        scope: Literal["global", "layer"] = Field(
            default="global", description="global: the smallest of the whole network; layer: of each layer"
        )

    def apply(
        self, artifact: Artifact, context: StepContext, config: Any, target: str | None, out_dir: Path
    ) -> Artifact:
        from torchstone.models import store
        from torchstone.train import stage

        model = store.load(artifact)
        weights = _weights(model.network)
        for group in [weights] if config.scope == "global" else [[weight] for weight in weights]:
            _zero(group, config.share)
        zeros = sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)
        made = stage.save_torch(model, artifact, context.calib, out_dir)
        before, after = files.gzipped(artifact.directory / store.WEIGHTS), files.gzipped(out_dir / store.WEIGHTS)
        return noted(
            made,
            f"sparsify: {100 * zeros:.1f} % of the weights are zero; the file is {made.size_mb:.3g} MB as before, "
            f"gzipped {after / 1e6:.3g} instead of {before / 1e6:.3g} MB",
        )


def _weights(network: nn.Module) -> list[torch.Tensor]:
    """Of convolutions and linear layers; not biases and norms, which are few and count."""
    from torch import nn

    return [module.weight.detach() for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]


def _zero(weights: list[torch.Tensor], share: float) -> None:
    """Set ``share`` of the values of these tensors to zero, together the smallest in magnitude."""
    import torch

    magnitudes = torch.cat([weight.abs().flatten() for weight in weights])
    count = round(share * len(magnitudes))
    if count:
        threshold = magnitudes.kthvalue(count).values
        for weight in weights:
            weight[weight.abs() <= threshold] = 0
