from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import optuna
import pytest

from torchstone.core.errors import ConfigError
from torchstone.search import objectives, space
from torchstone.search.space import Choices, Range
from torchstone.train import recipes

DECLARED = """
base = "finetune"

[search]
lr = {low = 1e-4, high = 1e-2, log = true}
momentum = {low = 0.5, high = 0.9, step = 0.1}
batch = {low = 16, high = 64, step = 16}
optimiser = ["sgd", "adamw"]
freeze = [["backbone"], ["layer1.*", "layer2.*"], []]
drop-path = ["none", 0.1]
model = ["resnet18", "resnet34"]
image_size = [160, 224]
"""


def declared(tmp_path: Path) -> dict[str, Range | Choices]:
    path = tmp_path / "mine.toml"
    path.write_text(DECLARED)
    found = space.of_file(path)
    assert found is not None
    return found


def test_a_recipes_file_declares_ranges(tmp_path: Path) -> None:
    found = declared(tmp_path)
    assert found["lr"] == Range(low=1e-4, high=1e-2, log=True)
    assert found["batch"] == Range(low=16, high=64, step=16)
    assert found["freeze"] == Choices(values=(("backbone",), ("layer1.*", "layer2.*"), ()))
    assert found["drop_path"] == Choices(values=(None, 0.1))
    assert found["image_size"] == Choices(values=(160, 224))
    assert recipes.by_name(str(tmp_path / "mine.toml")) == recipes.finetune()


def test_what_is_drawn_fits_the_training_and_comes_back_from_the_database(tmp_path: Path) -> None:
    found = declared(tmp_path)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = []
    for _ in range(40):
        trial = study.ask()
        values = space.suggest(found, trial)
        seen.append(values)
        assert isinstance(values["batch"], int)
        assert values["batch"] in (16, 32, 48, 64)
        assert 1e-4 <= values["lr"] <= 1e-2
        recipes.changed(recipes.finetune(), {k: v for k, v in values.items() if k not in space.OF_THE_NETWORK})
        stored = study.trials[-1].params
        assert {name: found[name].stored(value) for name, value in stored.items()} == values
    assert {values["freeze"] for values in seen} == set(found["freeze"].values)  # pyright: ignore
    assert sum(values["lr"] < 1e-3 for values in seen) == pytest.approx(20, abs=8), "a logarithmic range"


def test_ranges_survive_as_plain_values(tmp_path: Path) -> None:
    found = declared(tmp_path)
    assert space.parse(space.rows(found), "the study") == found


def test_the_first_trial_takes_what_the_recipe_has_where_the_ranges_hold_it(tmp_path: Path) -> None:
    known = {
        "lr": 4e-4,
        "batch": 32,
        "momentum": 0.95,
        "freeze": (),
        "optimiser": "adamw",
        "model": None,
        "drop_path": None,
    }
    guess = space.first_guess(declared(tmp_path), known)
    assert guess == {"lr": 4e-4, "batch": 32, "freeze": "[]", "optimiser": "adamw", "drop_path": None}


@pytest.mark.parametrize("name", recipes.NAMED)
def test_every_named_recipe_has_usual_ranges_that_hold_what_it_does(name: str) -> None:
    recipe = recipes.NAMED[name]()
    found = space.usual(name, recipe)
    assert space.parse(space.rows(found), name) == found
    held = {option for option in found if found[option].holds(getattr(recipe, option, None))}
    assert held == set(found) - set(space.OF_THE_NETWORK) - ({"augment"} if recipe.augment == "none" else set())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("lrr = [1e-3, 1e-2]", "unknown option 'lrr' in [search] of 'it'\nhint: did you mean 'lr'?"),
        ("workers = [0, 2]", "unknown option 'workers'"),
        ("lr = 1e-3", "it is one value"),
        ("lr = {low = 1e-3}", "a range has a low and a high end"),
        ("lr = {low = 1e-2, high = 1e-3}", "low is not below high"),
        ("lr = {low = 0, high = 1e-3}", "greater than 0"),
        ("weight_decay = {low = 0, high = 1, log = true}", "begins above 0"),
        ("lr = {low = 1e-4, high = 1e-3, logs = true}", "'logs'\nhint: did you mean 'log'?"),
        ("lr = {low = 1e-4, high = 1e-3, log = 1}", "log is true or false"),
        ("lr = {low = 1e-4, high = 1e-3, log = true, step = 1e-4}", "takes no step"),
        ("batch = {low = 16, high = 64, step = 0.5}", "the step must be a whole number"),
        ("batch = {low = 1.5, high = 64}", "1.5"),
        ("momentum = {low = 0.5, high = 1.5}", "less than 1"),
        ("optimiser = {low = 1, high = 2}", "input should be 'sgd', 'adamw' or 'radam'"),
        ("freeze_norms = {low = true, high = false}", "'freeze_norms' is no number"),
        ('optimiser = ["sgd"]', "two values or more"),
        ('optimiser = ["sgd", "sgd"]', "all different"),
        ('optimiser = ["sgd", "adam"]', "optimiser = 'adam' is refused: input should be"),
        ("image_size = [160, 1.5]", "1.5 is no whole number"),
        ("", "is empty"),
    ],
)
def test_a_range_that_means_nothing_is_refused_with_its_place(line: str, message: str) -> None:
    table: dict[str, Any] = tomllib.loads(line)
    with pytest.raises(ConfigError) as caught:
        space.parse(table, "'it'")
    assert message in str(caught.value)


def test_objectives_are_named() -> None:
    assert [one.direction for one in objectives.named(["top1", "latency"])] == ["maximize", "minimize"]
    for names, message in (
        (["top2"], "did you mean 'top1'"),
        ([], "needs an objective"),
        (["top1"] * 2, "named twice"),
    ):
        with pytest.raises(ConfigError, match=message):
            objectives.named(names)


def test_the_front_are_those_that_nothing_beats() -> None:
    both = objectives.named(["top1", "size"])
    rows = {0: (90.0, 10.0), 1: (92.0, 12.0), 2: (91.0, 13.0), 3: (90.0, 9.0), 4: (92.0, 12.0)}
    assert objectives.front(rows, both) == [1, 4, 3]
    assert objectives.front({0: (90.0,), 1: (92.0,), 2: (92.0,)}, both[:1]) == [1]
    assert objectives.front({0: (0.4,), 1: (0.3,)}, objectives.named(["loss"])) == [1]
    assert objectives.front({}, both) == []
