"""One list of options: what a run, a recipe and a step take, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from torchstone.cli import _recipes
from torchstone.compress import chain
from torchstone.config import Settings, settings, to_toml
from torchstone.core.errors import ConfigError, TorchstoneError
from torchstone.search import space
from torchstone.stages import train as stage
from torchstone.stages.read import Data
from torchstone.train import recipes
from torchstone.train.recipe import Recipe

OPTIONS = {
    "augment": "strong",
    "mixup": 0.2,
    "cutmix": 1.0,
    "sampler": "balanced",
    "class_weights": 0.999,
    "workers": 2,
    "freeze": ("layer1.*", "backbone"),
    "drops": (0.5, 0.8),
    "drop_path": None,
    "freeze_norms": True,
}
TEXTS = {
    **{name: str(value) for name, value in OPTIONS.items()},
    "freeze": "layer1.*, backbone",
    "drops": "0.5,.8",
    "drop-path": "none",
    "class-weights": "999e-3",
    "freeze_norms": "true",
}


@pytest.mark.parametrize("given", [OPTIONS, TEXTS], ids=["values", "texts"])
def test_a_run_passes_its_options_on(given: dict[str, Any]) -> None:
    recipe = recipes.changed(Recipe(), Settings(data="digits", set=given).recipe_options)
    assert {name: getattr(recipe, name) for name in OPTIONS} == OPTIONS
    assert recipe == Recipe(**OPTIONS)  # pyright: ignore[reportArgumentType]


def test_however_an_option_is_given_it_is_the_same_run(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("lr = 3e-4\n[set]\nmixup = 0.2\n")
    ways: list[tuple[dict[str, Any], Path | None]] = [
        ({"lr": 3e-4, "set": {"mixup": "0.2"}}, None),
        ({"set": {"mixup": 0.2, "lr": "0.0003"}}, None),
        ({}, tmp_path / "run.toml"),
        ({"set": {"lr": 3e-4}}, tmp_path / "run.toml"),
    ]
    found = [settings({"data": "digits", **given}, config) for given, config in ways]
    assert len({str(one.run) for one in found}) == 1
    assert len({str(sorted(one.recipe_options.items())) for one in found}) == 1
    (tmp_path / "again.toml").write_text(to_toml(Settings(data="digits", set=OPTIONS)))
    assert settings({}, tmp_path / "again.toml") == Settings(data="digits", set=OPTIONS)


def test_an_option_given_twice_is_refused_and_a_flag_goes_before_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lr is given twice"):
        Settings(data="digits", lr=1e-3, set={"lr": 2e-3})
    (tmp_path / "run.toml").write_text("lr = 3e-4\n[set]\nmixup = 0.2\ncutmix = 1.0\n")
    found = settings({"data": "digits", "set": {"lr": "1e-3", "mixup": "0"}}, tmp_path / "run.toml")
    assert found.recipe_options == {"lr": 1e-3, "mixup": 0.0, "cutmix": 1.0}


def test_workers_change_nothing_that_is_trained(tmp_path: Path) -> None:
    plain, more, kept = (
        Settings(data="digits", runs=tmp_path, **given)  # pyright: ignore[reportArgumentType]
        for given in ({}, {"workers": 2}, {"set": {"keep": 9}})
    )
    assert plain.run == more.run == kept.run
    assert Settings(data="digits", runs=tmp_path, set={"mixup": 0.2}).run != plain.run
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
        Settings(data="digits", set=given)
    with pytest.raises(ConfigError, match=expected):
        Recipe(**given)


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("lr", "fast", "lr = 'fast' is refused"),
        ("lr", "-1", "greater than 0"),
        ("epochs", "2.5", "valid integer"),
        ("optimiser", "adam", "'adamw'"),
        ("drops", "a,b", "valid number"),
        ("freeze_norms", "maybe", "keep the statistics"),
        ("batch", "none", "valid integer"),
        ("optimizer", "sgd", "did you mean 'optimiser'"),
        ("smoothing", "0.1", "did you mean 'label_smoothing'"),
        ("xyz", "1", "torchstone recipes scratch"),
    ],
)
def test_an_option_that_is_none_is_refused(option: str, value: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        Settings(data="digits", set={option: value})


@pytest.mark.parametrize("name", recipes.NAMED)
def test_a_recipe_says_what_it_is_for_and_its_description_is_itself(name: str, tmp_path: Path) -> None:
    assert len(recipes.NAMED[name].__doc__ or "") > 150
    (tmp_path / "own.toml").write_text(recipes.described(name))
    assert recipes.by_name(str(tmp_path / "own.toml")) == recipes.by_name(name)
    mine = recipes.changed(recipes.by_name(name), {"lr": 0.123, "freeze": "a,b", "dropout": 0.2})
    (tmp_path / "mine.toml").write_text(recipes.to_toml(mine, name))
    assert recipes.by_name(str(tmp_path / "mine.toml")) == mine
    assert (tmp_path / "mine.toml").read_text().count("\n") == 4, "what is as usual is left out"
    assert recipes.root_of(str(tmp_path / "mine.toml")) == name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('base = "finetune"\nlerning_rate = 1', "has no option 'lerning_rate'"),
        ('base = "finetune"\nlr = 0', "lr = 0 is refused"),
        ('base = "fintune"', "did you mean 'finetune'"),
        ("lr = 0.1", "does not say what it starts from"),
        ("lr =", "is not TOML"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(text: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(text)
    with pytest.raises(ConfigError, match=expected) as refused:
        recipes.by_name(str(tmp_path / "own.toml"))
    assert "own.toml" in refused.value.message


@pytest.mark.parametrize(("name", "expected"), [("finetun", "did you mean 'finetune'"), ("no.toml", "does not exist")])
def test_a_recipe_that_is_not_there_is_refused(name: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        stage.check(Settings(data="digits", model="lenet5", recipe=name))


def test_a_probe_needs_weights() -> None:
    with pytest.raises(ConfigError, match="whose weights are fresh"):
        stage.check(Settings(data="digits", model="lenet5", recipe="probe"))


@pytest.mark.parametrize("name", ["probe", "finetune"])
def test_a_recipe_that_builds_on_weights_chooses_them_or_says_so_before_anything_is_read(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given = Settings(data=str(tmp_path / "nowhere"), recipe=name)
    assert stage.planned(given).weights == "lite0"
    monkeypatch.setattr(stage.registry, "missing_packages", lambda names: [one for one in names if "lite" in one])
    with pytest.raises(ConfigError, match="builds on trained weights") as refused:
        stage.check(given)
    assert "torchstone[lite]" in str(refused.value.hint)


@pytest.mark.parametrize("model", ["lenet5", "timm:resnet18", None])
def test_layers_to_freeze_are_looked_for_before_anything_is_read(model: str | None, tmp_path: Path) -> None:
    given = Settings(data=str(tmp_path / "nowhere"), model=model, set={"freeze": "no.such.layer"})
    with pytest.raises(ConfigError, match=r"freeze = 'no\.such\.layer' matches no layer"):
        stage.check(given)


def test_a_rate_for_a_head_that_is_fitted_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at no learning rate"):
        stage.find_rate(Settings(data=str(tmp_path / "nowhere"), recipe="probe", weights="lite0"))


def test_ranges_of_a_search_do_not_disturb_a_training(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text('base = "quick"\n[search]\nlr = {low = 1e-4, high = 1e-2, log = true}\n')
    assert recipes.by_name(str(tmp_path / "own.toml")) == recipes.quick()


@pytest.mark.parametrize("policy", ["standart", "own.toml"])
def test_a_step_takes_named_policies_alone(policy: str) -> None:
    assert chain.plan("finetune=2:augment=strong").steps
    with pytest.raises(TorchstoneError, match="unknown augmentation policy"):
        chain.plan(f"finetune=2:augment={policy}")


@pytest.mark.parametrize("model", ["lenet5", None])
def test_a_policy_of_ones_own_is_tried_before_anything_is_read(model: str | None, tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text('[[transform]]\nname = "ToDtype"\ndtype = "float"\n')
    given = Settings(data=str(tmp_path / "no such folder"), model=model, augment=f"{tmp_path}/own.toml")
    with pytest.raises(ConfigError, match=r"own\.toml"):
        stage.check(given)


def test_a_policy_for_one_size_is_refused_when_the_images_have_chosen_another(
    tmp_path: Path, data: Data, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "large.toml").write_text('[[transform]]\nname = "RandomCrop"\nsize = 224\n')
    given = Settings(data="digits", runs=tmp_path, augment=f"{tmp_path}/large.toml")
    stage.check(given)  # photos would do
    with pytest.raises(ConfigError, match=r"large\.toml"):
        stage.trained(given, data)
    assert "--model resnet20" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()


def test_all_that_is_wrong_with_a_recipe_is_told_at_once(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(
        'epochs = 2.5\nschedule = "cosin"\nlerning_rate = 1\n[search]\nlearning_rate = [1e-3, 1e-2]\nlr = 3\n'
    )
    with pytest.raises(ConfigError) as refused:
        space.of_recipe(str(own))
    told = str(refused.value)
    assert "6 mistakes" in told
    for expected in (
        "starts from",
        "epochs = 2.5",
        "schedule = 'cosin'",
        "'lerning_rate'",
        "did you mean 'lr'",
        "lr = 3",
    ):
        assert expected in told
    assert len(refused.value.each) == 6
    with pytest.raises(ConfigError, match="2 mistakes") as both:
        Settings(data="digits", set={"epochs": "2.5", "optimiser": "sdg"})
    assert "epochs" in both.value.message
    assert "optimiser" in both.value.message


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("optimiser = sgd", '"sgd"'),
        ("dropout = none  # ours", '"none"'),
        ("lr = 0.1 0.2", None),
        ("ema = true false", None),
    ],
)
def test_a_text_without_quotes_is_known_for_what_it_is(line: str, hint: str | None, tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(f'base = "scratch"\nwhiten = true\n{line}\n')
    with pytest.raises(ConfigError, match="is not TOML") as refused:
        recipes.by_name(str(own))
    told = refused.value.hint or ""
    assert ("quotes" in told) == (hint is not None)
    assert hint is None or told.endswith(hint)


@pytest.mark.parametrize("spelling", ["none", "None"])
def test_none_is_a_value_of_an_option_that_may_be_left_to_the_network(spelling: str, tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(f'base = "scratch"\ndropout = "{spelling}"\n')
    assert recipes.by_name(str(tmp_path / "own.toml")).dropout is None
    assert Settings(data="digits", set={"dropout": spelling}).recipe_options == {"dropout": None}


def test_a_recipes_file_is_shown_with_its_ranges(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = tmp_path / "own.toml"
    own.write_text(
        'base = "quick"\n[search]\nlr = {low = 1e-4, high = 1e-2, log = true}\nfreeze = [["backbone"], []]\n'
    )
    assert _recipes.recipes(str(own), json=False) == 0
    shown = tmp_path / "shown.toml"
    shown.write_text(capsys.readouterr().out)
    assert space.of_recipe(str(shown)) == space.of_recipe(str(own))
    assert _recipes.recipes(str(own), json=True) == 0
    assert json.loads(capsys.readouterr().out)[str(own)]["search"]["lr"] == {"low": 1e-4, "high": 1e-2, "log": True}
