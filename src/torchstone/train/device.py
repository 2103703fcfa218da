"""On what a training computes, and in which arithmetic."""

from __future__ import annotations

from typing import Any

import torch

from torchstone.core.errors import ConfigError
from torchstone.evaluate import peaks
from torchstone.train import distributed

DEVICES = ("auto", "cpu", "cuda")
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
_chosen = "auto"


def use(name: str) -> None:
    """Train on ``cpu`` or ``cuda`` from now on; ``auto`` takes a GPU where there is one. Raises a ConfigError for a
    GPU that is not there."""
    global _chosen
    if name not in DEVICES:
        raise ConfigError(f"device = '{name}' is refused", hint=f"known: {', '.join(DEVICES)}")
    if name == "cuda" and not torch.cuda.is_available():
        why = "this torch was built without CUDA" if torch.version.cuda is None else "no GPU and driver answer here"
        raise ConfigError(f"device = 'cuda', but {why}", hint="--device auto; 'torchstone doctor' looks at the GPU")
    _chosen = name


def device() -> torch.device:
    """The device of this process: the GPU of its number on this machine where there is one, else the CPU. On a GPU, a
    resumed run is close to the one left alone, not equal to the bit: some of its kernels add in any order."""
    if _chosen == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", distributed.here().local)


def arithmetic(precision: str) -> tuple[str, str]:
    """Device and precision. ``auto`` is BF16 where that is not much slower (``peaks.bf16_pays``: often twice as fast),
    else float32."""
    where = device().type
    if precision != "auto":
        return where, precision
    pays = torch.cuda.is_bf16_supported(including_emulation=False) if where == "cuda" else peaks.bf16_pays()
    return where, "bf16" if pays else "f32"


def autocast(precision: str) -> Any:
    """The context in which the network computes in ``arithmetic(precision)``."""
    where, use = arithmetic(precision)
    return torch.autocast(where, dtype=DTYPES["bf16" if use == "f32" else use], enabled=use != "f32")


def scaler(precision: str) -> torch.amp.GradScaler:
    """What keeps the gradients of float16 from vanishing; in the other precisions it does nothing."""
    where, use = arithmetic(precision)
    return torch.amp.GradScaler(where, enabled=use == "f16")
