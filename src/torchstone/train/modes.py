"""Whether a network trains or is judged: every module has its own mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def judging(network: nn.Module) -> Iterator[None]:
    """Inside, all modules are in evaluation mode; afterwards each is in its own mode again: frozen batch norms stay
    apart from those that train."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
