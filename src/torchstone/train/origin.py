"""Where a training stopped being numbers: the first layer, found by going through the network once more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from torchstone.core import seeding
from torchstone.train.device import autocast

if TYPE_CHECKING:
    from torchstone.train.job import Job

NAMED = 3
"""Images of a broken batch that an error names."""


def short(name: str) -> str:
    """A layer's name without what a wrapper for several processes puts before it."""
    return name.removeprefix("module.")


def origin(
    job: Job, number: int, x: torch.Tensor, items: Sequence[str], what: str, parts: int
) -> tuple[str | None, str | None]:
    """Where the first value that is no number comes from, as a phrase, and what kind of place that is. ``items`` are
    the images of the network's input ``x``, which goes through it in ``parts``."""
    named = f"{', '.join(items[:NAMED])}{' …' if len(items) > NAMED else ''}"
    if not bool(torch.isfinite(x).all()):
        return f"in the images of the batch ({named})", "images"
    for name, parameter in job.model.network.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            return f"in the weights '{short(name)}', before this step", "weights"
    found = _first_layer(job, number, x, parts, backward=what == "gradient")
    return (f"in {found}, with the images {named}", "layer") if found else (None, None)


def _first_layer(job: Job, number: int, x: torch.Tensor, parts: int, *, backward: bool) -> str | None:
    """The first layer, in the order of the computation, that makes something that is no number: as its output, or as
    the gradient of what it was given. The network is left as it was."""
    network: nn.Module = job.model.network
    network = getattr(network, "module", network)  # other processes do not take part
    found: list[str] = []
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    gradients = [parameter.grad for parameter in network.parameters()]

    def look(value: torch.Tensor, title: str) -> None:
        if not bool(torch.isfinite(value).all()):
            found.append(title)

    def before(title: str) -> Any:
        def see(_: nn.Module, inputs: Any) -> None:
            for value in inputs:
                if isinstance(value, torch.Tensor) and value.requires_grad:
                    value.register_hook(lambda gradient: look(gradient, f"the gradient that leaves {title}"))

        return see

    def after(title: str) -> Any:
        def see(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor):
                look(output.detach(), f"the output of {title}")

        return see

    handles = []
    for name, module in network.named_modules():
        title = f"layer '{name}' ({type(module).__name__})" if name else "the network"
        handles.append(module.register_forward_hook(after(title)))
        if backward and not list(module.children()):
            handles.append(module.register_forward_pre_hook(before(title)))
    try:
        with torch.random.fork_rng(devices=[x.device] if x.device.type == "cuda" else []), torch.enable_grad():
            torch.manual_seed(seeding.seed_of(job.seed, "step", number))
            for part in x.tensor_split(parts):
                with autocast(job.recipe.precision):
                    logits = network(part.detach().clone().requires_grad_(backward))
                if backward and not found:
                    logits.float().logsumexp(1).sum().backward()
                if found:
                    break
    finally:
        for handle in handles:
            handle.remove()
        with torch.no_grad():
            for name, buffer in network.named_buffers():
                buffer.copy_(buffers[name])
            for parameter, gradient in zip(network.parameters(), gradients, strict=True):
                parameter.grad = gradient
    return found[0] if found else None
