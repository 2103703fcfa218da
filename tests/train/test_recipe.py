"""One list of options: what a run, a recipe and a step take, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from torchstone.compress import chain
from torchstone.config import Settings
from torchstone.core.errors import ConfigError, TorchstoneError
from torchstone.stages import train as stage
from torchstone.stages.read import Data
from torchstone.train.recipe import Recipe

OPTIONS = {
    "augment": "strong",
    "mixup": 0.2,
    "cutmix": 1.0,
    "sampler": "balanced",
    "class_weights": 0.999,
    "workers": 2,
}


def test_a_run_passes_its_options_on() -> None:
    given = Settings(data="digits", **OPTIONS).recipe_options
    recipe = Recipe().model_copy(update=given)
    assert {name: getattr(recipe, name) for name in OPTIONS} == OPTIONS


def test_workers_change_nothing_that_is_trained(tmp_path: Path) -> None:
    plain, more = (Settings(data="digits", runs=tmp_path, workers=workers) for workers in (None, 2))
    assert plain.run == more.run
    assert Settings(data="digits", runs=tmp_path, mixup=0.2).run != plain.run
    assert "workers" not in Recipe(workers=3).model_dump(mode="json")


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("augment", "standart", "did you mean 'standard'"),
        ("augment", "own.toml", "'own.toml' does not exist"),
        ("sampler", "balance", "did you mean 'balanced'"),
        ("sampler", "rose=0", "a number above 0"),
    ],
)
def test_what_is_no_policy_and_no_sampler_is_refused_everywhere(option: str, value: str, expected: str) -> None:
    given: dict[str, Any] = {option: value}
    with pytest.raises(ConfigError, match=expected):
        Settings(data="digits", **given)
    with pytest.raises(ConfigError, match=expected):
        Recipe(**given)


@pytest.mark.parametrize("policy", ["standart", "own.toml"])
def test_a_step_takes_named_policies_alone(policy: str) -> None:
    assert chain.plan("finetune=2:augment=strong").steps
    with pytest.raises(TorchstoneError, match="unknown augmentation policy"):
        chain.plan(f"finetune=2:augment={policy}")


@pytest.mark.parametrize("model", ["lenet5", None])
def test_a_policy_of_ones_own_is_tried_before_anything_is_read(model: str | None, tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text('[[transform]]\nname = "ToDtype"\ndtype = "float"\n')
    settings = Settings(data=str(tmp_path / "no such folder"), model=model, augment=f"{tmp_path}/own.toml")
    with pytest.raises(ConfigError, match=r"own\.toml"):
        stage.check(settings)


def test_a_policy_for_one_size_is_refused_when_the_images_have_chosen_another(
    tmp_path: Path, data: Data, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "large.toml").write_text('[[transform]]\nname = "RandomCrop"\nsize = 224\n')
    settings = Settings(data="digits", runs=tmp_path, augment=f"{tmp_path}/large.toml")
    stage.check(settings)  # photos would do
    with pytest.raises(ConfigError, match=r"large\.toml"):
        stage.trained(settings, data)
    assert "--model resnet20" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()
