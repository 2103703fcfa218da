"""After a training, what to type next fits what was found, and what is said to repeat it does."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from torchstone.cli import train as verb
from torchstone.config import Settings, command_line
from torchstone.core.values import Artifact, Finding
from torchstone.stages import next_steps
from torchstone.stages import train as stage

TOO_HIGH = Finding(check="rate_too_high", severity="warning", message="", hint="--set lr=0.03", tries=("lr=0.03",))
DEAD = Finding(check="dead_relus", severity="warning", message="", follows="rate_too_high")
LABELS = Finding(check="wrong_labels", severity="warning", message="", hint="look at them", items=("a.png",))
SLOW = Finding(check="data_bound", severity="warning", message="", hint="--workers 2")
SMALL = Finding(check="small_val", severity="warning", message="", tries=("metric=loss",))


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"name": "a b", "runs": Path("other runs"), "model": "lenet5", "epochs": 0, "weights": "it's.safetensors"},
        {"small_input": True, "channels": 1, "lr": 3e-4, "track": ("tensorboard", "mlflow"), "cache_gb": 0.5},
        {"recipe": "finetune", "set": {"freeze": ("layer1.*", "fc"), "dropout": None, "whiten": True, "ema": 0.99}},
        {"split_by": "hash", "seed": 3, "test_fraction": 0.25, "device": "cpu", "workers": 0, "max_drop": 2.0},
    ],
)
def test_the_command_line_gives_the_same_settings_again(given: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = Settings(data="my images", **given)
    typed = shlex.split(command_line(chosen, "train"))
    assert typed[:2] == ["torchstone", "train"]
    found: list[Settings] = []

    def caught(settings: Settings) -> Artifact:
        found.append(settings)
        raise SystemExit(0)

    monkeypatch.setattr(stage, "train", caught)
    app = typer.Typer()
    app.command()(verb.command)
    result = CliRunner().invoke(app, typed[2:])
    assert result.exit_code == 0, result.output
    assert found == [chosen.model_copy(update={"max_drop": 1.0})], "all that is said of a training, and no more"


def commands(artifact: Artifact, *findings: Finding, **settings: Any) -> list[str]:
    chosen = Settings(data="digits", **{"lr": 0.3, **settings})
    return [step.command for step in next_steps.after_training(artifact, findings, chosen)]


def test_a_training_that_went_wrong_is_to_be_made_again(trained: Artifact) -> None:
    typed = commands(trained, TOO_HIGH, DEAD, SLOW)
    assert typed == ["torchstone train digits --lr 0.03", "torchstone train digits --lr 0.3 --find-lr"]
    assert commands(trained, LABELS) == ["torchstone audit digits"]
    kept = commands(trained, TOO_HIGH.model_copy(update={"tries": ("clip=1", "lr=0.03")}), set={"ema": 0.9, "clip": 3})
    assert kept[0] == "torchstone train digits --set clip=1.0 --set ema=0.9 --lr 0.03"


def test_a_good_one_is_built_on(trained: Artifact) -> None:
    run = trained.directory.parent.parent
    for findings in ((), (SLOW,), (SLOW.model_copy(update={"severity": "info", "check": "compute_bound"}),)):
        compress, judge, evaluate = commands(trained, *findings)
        assert compress.startswith(f"torchstone compress {run} int8@")
        assert judge.startswith(f"torchstone judge {run} int8@")
        assert evaluate == f"torchstone evaluate {trained.directory}"
    *_, again = commands(trained, SMALL)
    assert again == "torchstone train digits --set metric=loss --lr 0.3"
    assert commands(trained, SMALL)[0].startswith("torchstone compress"), "the model may be good all the same"


def test_after_a_smoke_run_comes_a_training(trained: Artifact) -> None:
    assert commands(trained, recipe="quick", name="tried", lr=None) == ["torchstone train digits"]
