"""Which channels leave a network, and how many: what the steps that prune have in common."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
import torch_pruning
from torch import nn
from torch.nn import functional

from torchstone.compress.pruning_options import Pruning
from torchstone.core.contracts import ImageSet
from torchstone.core.errors import ChainError
from torchstone.core.seeding import sample_rows
from torchstone.models import cost, zoo
from torchstone.models.deployable import Deployable

VECTOR = 16
"""Channels that one AVX-512 register of float32 holds; INT8 kernels come in multiples of it as well."""
MOST = 0.9
"""Share of a layer's channels that leaves at most: ranked over the whole network, a layer could be left with none."""
ROUNDED = 0.01
"""Of a channel: by which a width may be missed in floating point."""
TAYLOR_IMAGES = 256
"""Training images of which the gradients are made that 'taylor' weighs channels by."""
HALVINGS = 9
"""Of the range of ratios in which the one is sought that gives a share of the MACs: to 0.2 points."""


def by_ratio(model: Deployable, ratio: float, how: Pruning, train: ImageSet, crop: int) -> Deployable:
    """``model`` without that share of channels (a new one; the given one stays). ``train`` are the images that
    'taylor' looks at. Raises a ChainError for a network that cannot be pruned so, or loses nothing."""
    step = how.round_to or rounding(model, ratio)
    made = _pruned(model, ratio, step, how, _gradients(model, how, train), crop)
    if zoo.parameters(made.network) == zoo.parameters(model.network):
        raise ChainError(
            f"prune={ratio:g} leaves every layer as wide as it was",
            hint="prune more, or set a smaller step: prune=0.3:round_to=1",
        )
    return made


def to_macs(model: Deployable, macs: int, how: Pruning, train: ImageSet, crop: int) -> Deployable:
    """``model`` without as few channels as it takes to need at most ``macs`` multiply-accumulates an image."""
    step = how.round_to or rounding(model, ratio_of(macs / cost.macs_of(model, crop)))
    gradients = _gradients(model, how, train)
    low, high = 0.0, MOST
    found = _pruned(model, high, step, how, gradients, crop)
    if cost.macs_of(found, crop) > macs:
        raise ChainError(
            f"{macs:,} MACs are out of reach: with {MOST:.0%} of the channels gone it takes "
            f"{cost.macs_of(found, crop):,}",
            hint="ask for more MACs, a smaller round_to, or a smaller model",
        )
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        tried = _pruned(model, middle, step, how, gradients, crop)
        if cost.macs_of(tried, crop) <= macs:
            found, high = tried, middle
        else:
            low = middle
    return found


def ratio_of(share: float) -> float:
    """Of the channels, that leave about this share of the MACs: they go with the square of the widths."""
    return 1 - math.sqrt(min(1.0, share))


def rounding(model: Deployable, ratio: float) -> int:
    """The largest power of two, 16 at most, that still lets the narrowest layer lose ``ratio`` of its channels. (Widths
    are rounded down: with a larger one every layer would lose more than was asked for.)"""
    _, head = zoo.head(model.network)
    widths = [
        module.weight.shape[0]
        for module in model.network.modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and module is not head
    ]
    step = VECTOR
    while step > 1 and step > ratio * min(widths, default=1):
        step //= 2
    return step


def described(before: Deployable, after: Deployable, crop: int) -> str:
    """What pruning did, in numbers."""
    macs, parameters = cost.macs_of(after, crop), zoo.parameters(after.network)
    was, had = cost.macs_of(before, crop), zoo.parameters(before.network)
    return (
        f"{macs / was:.3g} of the MACs ({was / 1e6:.3g} → {macs / 1e6:.3g} M), "
        f"{parameters / had:.3g} of the parameters ({had / 1e6:.3g} → {parameters / 1e6:.3g} M)"
    )


def _pruned(
    model: Deployable, ratio: float, step: int, how: Pruning, gradients: dict[str, torch.Tensor], crop: int
) -> Deployable:
    made = copy.deepcopy(model)
    network = made.network
    for name, parameter in network.named_parameters():
        parameter.grad = gradients.get(name)
    _, head = zoo.head(network)
    example = zoo.input_like(crop, model.channels)
    importance = _importance(network, how)
    try:
        torch_pruning.pruner.BasePruner(
            network,
            example,
            importance=importance,
            pruning_ratio=ratio,
            pruning_ratio_dict=_ratios(network, example, head, importance, ratio, step, how.scope),
            ignored_layers=[head],
            round_to=step,
        ).step()
        with torch.inference_mode():
            network.eval()(example)
    except (RuntimeError, ValueError, AttributeError, KeyError, IndexError) as error:
        raise ChainError(
            f"this network cannot be pruned: {error}", hint="choose another model, or leave 'prune' out"
        ) from None
    for parameter in network.parameters():
        parameter.grad = None
    return made


def _importance(network: nn.Module, how: Pruning) -> Any:
    importance = torch_pruning.importance
    if how.importance == "taylor":
        return importance.GroupTaylorImportance()
    if how.importance == "bn_scale":
        if not any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
            raise ChainError(
                "importance=bn_scale weighs channels by their batch norms, and this network has none",
                hint="importance=magnitude, or taylor",
            )
        return importance.BNScaleImportance()
    return importance.GroupMagnitudeImportance(p=2)


def _ratios(
    network: nn.Module, example: torch.Tensor, head: nn.Module, importance: Any, ratio: float, step: int, scope: str
) -> dict[Any, float]:
    """Of each layer at the root of a coupled group, the share of its channels that leaves: ``ratio`` of each, or what
    of it is among the weakest of all. At least ``step`` channels stay, since the library leaves a layer as it is where
    rounding would take the last one."""
    graph = torch_pruning.DependencyGraph().build_dependency(network, example)
    widths: dict[Any, int] = {}
    scores: dict[Any, torch.Tensor] = {}
    for group in graph.get_all_groups(ignored_layers=[head], root_module_types=[nn.Conv2d, nn.Linear]):
        score, root = importance(group), group[0].dep.target.module
        widths[root] = len(root.weight)
        if score is not None:
            scores[root] = score
    shares = dict.fromkeys(scores, ratio)
    if scope == "global" and scores:
        everything = torch.cat(list(scores.values())).sort().values
        threshold = everything[max(0, round(ratio * len(everything)) - 1)]
        shares = {root: float((score <= threshold).float().mean()) for root, score in scores.items()}
    return {root: max(0.0, min(share, MOST, 1 - (step + ROUNDED) / widths[root])) for root, share in shares.items()}


def _gradients(model: Deployable, how: Pruning, train: ImageSet) -> dict[str, torch.Tensor]:
    """Of the mean loss of some training images, by parameter; none where they are not needed. Batch norms keep to their
    statistics."""
    if how.importance != "taylor":
        return {}
    rows = sample_rows(train.labels, TAYLOR_IMAGES, "taylor")
    model.eval()
    model.zero_grad()
    for start in range(0, len(rows), 32):
        chunk = rows[start : start + 32]
        labels = torch.from_numpy(train.labels[chunk])
        loss = functional.cross_entropy(model(torch.from_numpy(train.images(chunk))), labels, reduction="sum")
        (loss / len(rows)).backward()
    found = {name: parameter.grad for name, parameter in model.network.named_parameters() if parameter.grad is not None}
    model.zero_grad()
    return found
