"""Ctrl-C in a training: it ends after the batch, with its checkpoint, and goes on to the same weights."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from training import Squares, model

from torchstone.train import loop
from torchstone.train.observe import Observer, Step
from torchstone.train.recipe import Recipe

pytestmark = pytest.mark.usefixtures("ctrl_c")


class Pressing(Observer):
    """Presses Ctrl-C after some step, so many times."""

    name = "pressing"

    def __init__(self, at: int, times: int = 1) -> None:
        self.at, self.times = at, times

    def step(self, step: Step) -> None:
        if step.number == self.at:
            for _ in range(self.times):
                os.kill(os.getpid(), signal.SIGINT)


def fit(directory: Path, *observers: Observer) -> dict[str, torch.Tensor]:
    """Two epochs of four batches; no checkpoint within an epoch unless someone asks for one."""
    recipe = Recipe(epochs=2, batch=16, precision="f32", workers=0, checkpoint_seconds=600)
    trained = model()
    loop.fit(trained, Squares(64, 0), Squares(16, 1), recipe, 0, directory, observers=observers)
    return trained.network.state_dict()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    return fit(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize(
    ("at", "place"), [(1, "in epoch 1 of 2, after batch 2 of 4"), (7, "in epoch 2 of 2, after batch 4 of 4")]
)
def test_the_first_one_stops_after_the_batch_and_the_same_command_goes_on(
    at: int, place: str, whole: dict[str, torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyboardInterrupt, match=f"stopped {place}; the same command goes on from there"):
        fit(tmp_path, Pressing(at))
    assert "stopping after this batch: the checkpoint is being written" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    again = fit(tmp_path, Pressing(-1))
    assert f"training goes on {place}" in capsys.readouterr().err
    assert all(torch.equal(again[name], value) for name, value in whole.items())


def test_the_second_one_stops_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        fit(tmp_path, Pressing(5, times=2))
    fit(tmp_path)
    assert "training goes on after epoch 1 of 2" in capsys.readouterr().err
