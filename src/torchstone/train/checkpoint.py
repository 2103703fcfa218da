"""The state of a training run in one safetensors file: tensors, and everything else as JSON in its header. One file
can be renamed at once, so that a killed process leaves the old checkpoint or the new one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from torchstone.core.errors import ArtifactError

NETWORK, OPTIMISER = "network.", "optimiser."


def save(path: Path, network: nn.Module, optimiser: torch.optim.Optimizer, progress: dict[str, Any]) -> None:
    """Write network, optimiser and ``progress`` (JSON-able), whole or not at all."""
    tensors = {NETWORK + name: value for name, value in network.state_dict().items()}
    for number, state in optimiser.state_dict()["state"].items():
        for name, value in state.items():
            tensors[f"{OPTIMISER}{number}.{name}"] = torch.as_tensor(value)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".tmp")
    plain = {name: value.detach().contiguous().clone() for name, value in tensors.items()}
    save_file(plain, beside, metadata={"progress": json.dumps(progress)})
    beside.replace(path)


def restore(path: Path, network: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """Load what ``save`` wrote into ``network`` and ``optimiser``; returns the progress."""
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            progress = json.loads(file.metadata()["progress"])
    except Exception as error:  # safetensors raises its own exception type
        raise ArtifactError(
            f"the checkpoint '{path}' is damaged: {error}", hint="delete it: training starts again from the beginning"
        ) from None
    network.load_state_dict(
        {name.removeprefix(NETWORK): value for name, value in tensors.items() if name.startswith(NETWORK)}
    )
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith(OPTIMISER):
            number, _, entry = name.removeprefix(OPTIMISER).partition(".")
            state.setdefault(int(number), {})[entry] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
    return progress
