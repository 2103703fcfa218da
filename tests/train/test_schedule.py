"""The rate over a training, against torch's one-cycle and by its shape."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from torchstone.train import optim, schedule
from torchstone.train.recipe import Recipe


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize(("warmup", "steps"), [(0.3, 100), (0.1, 37), (0.25, 8), (0.0, 20)])
def test_one_cycle_is_torchs(name: str, warmup: float, steps: int) -> None:
    recipe = Recipe(optimiser=name, schedule="one-cycle", lr=0.4, warmup=warmup)  # pyright: ignore[reportArgumentType]
    theirs = optim.optimiser(nn.Linear(2, 2), recipe)
    cycle = torch.optim.lr_scheduler.OneCycleLR(theirs, max_lr=recipe.lr, total_steps=steps, pct_start=warmup)
    for step in range(steps):
        group = theirs.param_groups[0]
        momentum = group["momentum"] if name == "sgd" else group["betas"][0]
        assert schedule.rate(recipe, step, steps) == pytest.approx(group["lr"], rel=1e-12)
        assert schedule.momentum(recipe, step, steps) == pytest.approx(momentum, rel=1e-12)
        theirs.step()
        if step + 1 < steps:
            cycle.step()


def test_cosine_rises_and_falls_to_zero() -> None:
    rates = [schedule.rate(Recipe(lr=1.0, warmup=0.2), step, 100) for step in range(100)]
    assert rates[:20] == pytest.approx([(step + 1) / 20 for step in range(20)])
    assert rates[60] == pytest.approx(0.5)
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert rates[-1] < 0.001


def test_steps_fall_at_their_shares_and_a_constant_stays() -> None:
    steps = Recipe(lr=1.0, warmup=0.0, schedule="step", drops=(0.5, 0.75), drop_factor=0.1)
    assert [schedule.rate(steps, step, 8) for step in range(8)] == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])
    constant = Recipe(lr=1.0, warmup=0.5, schedule="constant")
    assert [schedule.rate(constant, step, 8) for step in range(8)] == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]


@given(
    kind=st.sampled_from(["cosine", "one-cycle", "step", "constant"]),
    warmup=st.floats(0, 0.99),
    steps=st.integers(1, 50),
    momentum=st.floats(0, 0.999),
)
def test_no_schedule_leaves_its_range(kind: str, warmup: float, steps: int, momentum: float) -> None:
    options = {"schedule": kind, "warmup": warmup, "momentum": momentum, "lr": 2.0, "optimiser": "sgd"}
    recipe = Recipe.model_validate(options)
    rates = [schedule.rate(recipe, step, steps) for step in range(steps)]
    assert all(math.isfinite(rate) and 0 < rate <= 2.0 + 1e-12 for rate in rates)
    for step in range(steps):
        found = schedule.momentum(recipe, step, steps)
        assert (found is None) == (kind != "one-cycle" or momentum == 0)
        assert found is None or 0 <= found < 1
