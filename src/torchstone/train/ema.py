"""The moving average of a network's weights: often a better network than the last step's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

UPDATES = "updates"


class Average:
    """Exponential moving average of all parameters and buffers (a batch norm's statistics, too), on their device.

    The decay of update t (from 1) is min(decay, (1 + t) / (10 + t)), so that the first, random weights are soon
    forgotten. What is no fraction, such as a counter of batches, is copied.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._decay = decay
        self._updates = 0
        self._values = {name: value.detach().clone() for name, value in _state(network).items()}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take in the network as it is after a step."""
        self._updates += 1
        share = 1 - min(self._decay, (1 + self._updates) / (10 + self._updates))
        now = _state(network)
        floating = [name for name, value in now.items() if value.is_floating_point()]
        torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage] (one kernel for all of them)
            [self._values[name] for name in floating], [now[name] for name in floating], share
        )
        for name in now.keys() - set(floating):
            self._values[name].copy_(now[name])

    @contextmanager
    def applied(self, network: nn.Module) -> Iterator[None]:
        """Inside, the network has the averages; its own values are back afterwards. Train nothing inside."""
        self._swap(network)
        try:
            yield
        finally:
            self._swap(network)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The averages by the network's names, and how many updates there were."""
        return {**self._values, UPDATES: torch.tensor(self._updates)}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take back what ``state_dict`` gave."""
        self._updates = int(state[UPDATES])
        for name, value in self._values.items():
            value.copy_(state[name])

    def _swap(self, network: nn.Module) -> None:
        for name, value in _state(network).items():
            value.data, self._values[name].data = self._values[name].data, value.data


def _state(network: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers by name, each once."""
    return dict(network.named_parameters()) | dict(network.named_buffers())
