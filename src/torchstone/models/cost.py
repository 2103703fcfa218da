"""What a network costs before it has learnt anything: parameters and multiply-accumulate operations, by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from torchstone.models import zoo
from torchstone.models.deployable import Deployable


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one image. ``layers`` has the MACs of each module that has any, by its path; what is computed outside of such
    modules (attention) is in ``macs`` alone."""

    parameters: int
    macs: int
    layers: dict[str, int]


def cost(architecture: str, *, classes: int, crop: int, channels: int = 3) -> Cost:
    """Of an architecture by its full name. Nothing is computed and no memory is taken: the network is built and run on
    torch's 'meta' device, which knows shapes alone."""
    with torch.device("meta"):
        network = zoo.build(architecture, classes=classes, channels=channels)
    return cost_of(network, torch.zeros(1, channels, crop, crop, device="meta"))


def macs_of(model: Deployable, crop: int) -> int:
    """Multiply-accumulates of one image of ``crop`` pixels a side, and of its mirror image where the model looks at it,
    too."""
    once = cost_of(model.network, zoo.input_like(crop, model.channels)).macs
    return 2 * once if model.mirrored else once


def cost_of(network: nn.Module, image: torch.Tensor) -> Cost:
    """Of a network for ``image``, float32[1, C, H, W] on its device. The MACs are torch's own count (convolutions and
    matrix products; half of what it calls FLOPs), those of a layer come from the shapes that pass through it."""
    from torch.utils.flop_counter import FlopCounterMode

    layers: dict[str, int] = {}

    def counting(name: str) -> Any:
        def count(module: nn.Module, _: Any, output: torch.Tensor) -> None:
            if isinstance(module, nn.Conv2d):
                layers[name] = layers.get(name, 0) + output.numel() * module.weight[0].numel()
            elif isinstance(module, nn.Linear):
                layers[name] = layers.get(name, 0) + output.numel() * module.in_features

        return count

    hooks = [module.register_forward_hook(counting(name)) for name, module in network.named_modules()]
    training = network.training
    try:
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            network.eval()(image)
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    return Cost(parameters=zoo.parameters(network), macs=counter.get_total_flops() // 2, layers=layers)


def training_bytes(
    architecture: str, *, classes: int, crop: int, batch: int, channels: int = 3, states: int = 2
) -> tuple[int, int]:
    """Bytes that a training in float32 holds: those that do not depend on the batch (weights, gradients and ``states``
    numbers for each weight of the optimiser: SGD with momentum has one, AdamW two), and those of one batch (what each
    layer keeps for the backward pass, by what autograd saves on torch's 'meta' device, where nothing is computed).

    What a library takes for itself while it computes (CUDA's context, workspaces) is not in it.
    """
    with torch.device("meta"):
        network = zoo.build(architecture, classes=classes, channels=channels).train()
        images = torch.zeros(batch, channels, crop, crop)
    weights = {one.untyped_storage()._cdata for one in network.parameters()}  # counted once, as weights
    kept: dict[int, int] = {}
    alive: list[torch.Tensor] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights and storage._cdata not in kept:
            kept[storage._cdata] = storage.nbytes()
            alive.append(tensor)  # or its address would be given to another
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        network(images).sum()
    fixed = sum(one.numel() for one in network.parameters()) * 4 * (2 + states)
    return fixed, sum(kept.values()) + 4 * images.numel()
