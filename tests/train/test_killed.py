"""A training that is killed by SIGKILL, in processes of its own, ends as if it had never been."""

from __future__ import annotations

import json
import multiprocessing
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import training

STEPS = 21
"""Of the training in training.py: three epochs of seven batches."""

ALL: dict[str, Any] = {
    "optimiser": "sgd", "lr": 0.05, "schedule": "one-cycle", "ema": 0.9, "accumulate": 2, "mixup": 0.4, "cutmix": 1.0,
    "freeze": ["0", "1"], "unfreeze": 0.34, "l1": 1e-4, "class_weights": 0.9, "first_size": 0.5, "augment": "standard",
}  # fmt: skip
OTHERS: dict[str, Any] = {
    "optimiser": "radam", "precision": "bf16", "loss": "focal", "schedule": "step", "layer_decay": 0.8, "ema": 0.99,
    "freeze_norms": True, "sampler": "balanced", "augment": "strong", "metric": "macro_f1", "dropout": 0.4,
}  # fmt: skip
CASES: dict[str, tuple[dict[str, Any], Sequence[int], int]] = {
    "everything, SGD": (ALL, (0, 2, 1, 0, 2, 0), 0),
    "everything else, RAdam, BF16": (OTHERS, (0, 0, 1, 0, 0, 0), 1),
    "plain, float16": ({"precision": "f16", "schedule": "constant"}, (1, 0, 0, 2, 0, 0), 2),
}
"""Options, the workers of each attempt, and the seed of the deaths."""


def deaths(seed: int) -> list[list[Any]]:
    """Where the attempts die: five moments, ever later, of which one is before the first checkpoint and two are in the
    middle of writing one (each of its files in turn, and between the two)."""
    draws = np.random.default_rng(seed)
    first, second, third = sorted(draws.choice(np.arange(2, STEPS - 1), 3, replace=False).tolist())
    return [
        ["gradients", int(draws.integers(0, 2))],
        ["step", first],
        ["writing", int(draws.integers(2, 6)), float(draws.uniform(0, 1))],
        [("gradients", "step")[seed % 2], max(second, first + 3)],
        ["written", int(draws.integers(2, 6))],
        ["epoch", 3] if third < STEPS - 3 else ["step", STEPS - 1],
    ]


@pytest.fixture(scope="module")
def process() -> Any:
    """Starts ``training.train`` as a process of its own; torch is imported once for all of them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torchstone.train.loop", "torchstone.data.augment.warp", "torch._dynamo"])

    def run(*arguments: Any) -> int:
        child = context.Process(target=training.train, args=arguments)
        child.start()
        child.join(300)
        assert child.exitcode is not None, "it hangs"
        return child.exitcode

    return run


def same(directory: Path, whole: Path) -> None:
    """Weights to the bit, and the history but for its clocks."""
    expected, found = (torch.load(place / "end.pt", weights_only=True) for place in (whole, directory))
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name
    expected, found = (json.loads((place / "history.json").read_text()) for place in (whole, directory))
    assert found == expected
    assert len(found) == 3


@pytest.mark.parametrize("case", CASES)
def test_killed_again_and_again_it_ends_the_same(case: str, process: Any, tmp_path: Path) -> None:
    options, workers, seed = CASES[case]
    assert process(tmp_path / "whole", options) == 0
    for death, count in zip(deaths(seed), workers, strict=True):
        assert process(tmp_path / "killed", {**options, "workers": count}, death) == -signal.SIGKILL, death
    assert process(tmp_path / "killed", options) == 0
    same(tmp_path / "killed", tmp_path / "whole")
