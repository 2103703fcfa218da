"""The ranges of a search: which options of a training vary, and between what.

    [search]
    lr = {low = 1e-4, high = 1e-2, log = true}
    batch = {low = 32, high = 128, step = 32}
    optimiser = ["sgd", "adamw"]

The table stands in the TOML file of a recipe; the recipes by name have ranges of their own (``usual``). Besides the
options of a recipe, ``model``, ``weights`` and ``image_size`` can vary.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchstone.core import files
from torchstone.core.errors import ConfigError, Mistakes, nearest
from torchstone.train import recipes
from torchstone.train.recipe import Recipe
from torchstone.train.recipes import SEARCH as TABLE

if TYPE_CHECKING:
    import optuna

OF_THE_NETWORK: dict[str, type] = {"model": str, "weights": str, "image_size": int}
"""What can vary besides the recipe, with its type."""


Condition = Mapping[str, tuple[Any, ...]]
"""By name of what was drawn before, the values of it with which an option is drawn at all; empty: always."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """Numbers from ``low`` to ``high``, both included. Two ints make it one of whole numbers."""

    low: float
    high: float
    log: bool = False
    """As many trials between 0.001 and 0.01 as between 0.01 and 0.1."""
    step: float | None = None
    given: Condition = field(default_factory=dict)

    def holds(self, value: Any) -> bool:
        """Whether ``value`` is one that this range can give."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        return self.step is None or math.isclose((value - self.low) / self.step % 1.0, 0.0, abs_tol=1e-9)

    def suggest(self, trial: optuna.Trial, name: str) -> Any:
        if isinstance(self.low, int):
            return trial.suggest_int(name, self.low, int(self.high), log=self.log, step=int(self.step or 1))
        return trial.suggest_float(name, self.low, self.high, log=self.log, step=self.step)

    def stored(self, value: Any) -> Any:
        """What the database holds, as the training takes it."""
        return value

    @property
    def table(self) -> Any:
        """As TOML would give it."""
        own = {key: value for key, value in asdict(self).items() if key != "given"}
        return {key: value for key, value in own.items() if value is not None and value is not False}


@dataclass(frozen=True, kw_only=True)
class Choices:
    """One of several values."""

    values: tuple[Any, ...]
    given: Condition = field(default_factory=dict)

    def holds(self, value: Any) -> bool:
        return value in self.values

    def suggest(self, trial: optuna.Trial, name: str) -> Any:
        """Lists go to the database as JSON, which stores only plain values."""
        return self.stored(trial.suggest_categorical(name, [_plain(value) for value in self.values]))

    def stored(self, value: Any) -> Any:
        return next(own for own in self.values if _plain(own) == value)

    @property
    def table(self) -> Any:
        plain = ("none" if value is None else value for value in self.values)
        return [list(value) if isinstance(value, tuple) else value for value in plain]


Space = Mapping[str, Range | Choices]


def suggest(space: Space, trial: optuna.Trial) -> dict[str, Any]:
    """A value for everything that varies in this trial: what it was given before, or what the sampler chooses now."""
    values: dict[str, Any] = {}
    for name, options in space.items():
        if all(values.get(other) in allowed for other, allowed in options.given.items()):
            values[name] = options.suggest(trial, name)
    return values


def first_guess(space: Space, known: Mapping[str, Any]) -> dict[str, Any]:
    """What the first trial is told to take: the values that the recipe has, where the ranges hold them."""
    return {
        name: _plain(known[name]) for name, options in space.items() if name in known and options.holds(known[name])
    }


def parse(table: Mapping[str, Any], where: str) -> dict[str, Range | Choices]:
    """The ranges that a TOML table declares; a ConfigError names each option, its value and ``where`` it stands."""
    if not isinstance(table, Mapping):
        raise ConfigError(
            f"search = {_spelt(table)} of {where} is no table", hint=f"[{TABLE}], and the ranges below it"
        )
    if not table:
        raise ConfigError(f"the table [{TABLE}] of {where} is empty", hint="lr = {low = 1e-4, high = 1e-2, log = true}")
    known = {*Recipe.model_fields, *OF_THE_NETWORK} - {"schema_version", *_no_numbers_of_a_training()}
    mistakes = Mistakes()

    def one(key: str, given: Any) -> tuple[str, Range | Choices]:
        name = key.replace("-", "_")
        if name not in known:
            raise ConfigError(
                f"unknown option '{key}' in [{TABLE}] of {where}",
                hint=nearest(recipes.ELSEWHERE.get(name, name), known),
            )
        return name, declared(name, given, f"{name} = {_inline(given)} in [{TABLE}] of {where}", _checked)

    found = [mistakes.of(one, key, given) for key, given in table.items()]
    mistakes.tell()
    return dict(found)


def of_file(path: Path) -> dict[str, Range | Choices] | None:
    """The ranges in a recipe's TOML file, None where it has no such table."""
    content = files.read_toml(path, "the recipe")
    return parse(content[TABLE], f"'{path}'") if TABLE in content else None


def of_recipe(recipe: str) -> tuple[Recipe, dict[str, Range | Choices] | None]:
    """The recipe of that name or in that TOML file, and the ranges that the file declares. A ConfigError tells all that
    is wrong with either."""
    mistakes = Mistakes()
    found = mistakes.of(recipes.by_name, recipe)
    ranges = mistakes.of(of_file, Path(recipe)) if Path(recipe).suffix == ".toml" else None
    mistakes.tell()
    return found, ranges


def usual(name: str, recipe: Recipe) -> dict[str, Range | Choices]:
    """The ranges of a recipe that declares none: an order of magnitude on either side of its rate and its decay, and
    what most often pays besides."""
    if recipe.frozen_features:  # the head is fitted in closed form or nearly so: what it sees is all there is to choose
        return {"image_size": Choices(values=(160, 192, 224, 256))}
    found: dict[str, Range | Choices] = {"lr": _around(recipe.lr)}
    if name == "quick":
        return found
    if recipe.weight_decay:
        found["weight_decay"] = _around(recipe.weight_decay)
    found["label_smoothing"] = Range(low=0.0, high=0.2)
    found["augment"] = Choices(values=("light", "standard", "strong"))
    if name == "finetune":
        found["layer_decay"] = Range(low=0.5, high=1.0)
    else:
        found["mixup"] = Choices(values=(0.0, 0.2))
    return found


def described(space: Space) -> str:
    """The ranges as the TOML table that declares them."""
    lines = [f"{name} = {_inline(table)}" for name, table in rows(space).items()]
    return "\n".join([f"[{TABLE}]", *lines]) + "\n"


def rows(space: Space) -> dict[str, Any]:
    """The ranges as plain values: what ``parse`` takes back."""
    return {name: options.table for name, options in space.items()}


def _around(value: float) -> Range:
    return Range(low=float(f"{value / 10:.3g}"), high=float(f"{min(value * 10, 1e6):.3g}"), log=True)


Checked = Callable[[str, Any, str], Any]
"""Takes an option's name, a value of it and how it was spelt, and returns the value as it is used, or raises a
ConfigError that quotes the spelling."""


def declared(name: str, given: Any, spelt: str, checked: Checked, *, least: int = 2) -> Range | Choices:
    """The range or the choices, ``least`` of them or more, that TOML gives for ``name``; a ConfigError quotes it as
    ``spelt``."""
    if isinstance(given, Sequence) and not isinstance(given, str):
        values = tuple(checked(name, value, spelt) for value in given)
        if len(set(map(_plain, values))) < max(least, len(values)):
            count = {1: "a value", 2: "two values"}[least]
            raise ConfigError(f"{spelt} is refused: a list needs {count} or more, all different")
        return Choices(values=values)
    if not isinstance(given, Mapping):
        raise ConfigError(
            f"{spelt} is refused: it is one value",
            hint=f"{name} = [{_spelt(given)}, …], or {{low = …, high = …}}; --set {name}={given} fixes it",
        )
    unknown = next((key for key in given if key not in ("low", "high", "log", "step")), None)
    if unknown is not None:
        raise ConfigError(f"{spelt} is refused: '{unknown}'", hint=nearest(unknown, ("low", "high", "log", "step")))
    if "low" not in given or "high" not in given:
        raise ConfigError(f"{spelt} is refused: a range has a low and a high end")
    ends = [checked(name, given[end], spelt) for end in ("low", "high")]
    if any(isinstance(end, bool) or not isinstance(end, int | float) for end in ends):
        raise ConfigError(f"{spelt} is refused: '{name}' is no number", hint=f"list the values to try: {name} = [ … ]")
    low, high = ends
    log, step = given.get("log", False), given.get("step")
    if not isinstance(log, bool):
        raise ConfigError(f"{spelt} is refused: log is true or false")
    if not low < high:
        raise ConfigError(f"{spelt} is refused: low is not below high")
    if log and low <= 0:
        raise ConfigError(f"{spelt} is refused: a range with log = true begins above 0")
    if step is not None:
        _check_step(step, low, spelt, log=log)
    return Range(low=low, high=high, log=log, step=step)


def _check_step(step: Any, low: float, spelt: str, *, log: bool) -> None:
    whole = isinstance(low, int)
    if isinstance(step, bool) or not isinstance(step, int | float) or step <= 0 or (whole and step != int(step)):
        raise ConfigError(f"{spelt} is refused: the step must be {'a whole number' if whole else 'a number'} above 0")
    if log:
        raise ConfigError(f"{spelt} is refused: a range with log = true takes no step")


def _checked(name: str, value: Any, spelt: str) -> Any:
    """The value as the training would take it."""
    if name in OF_THE_NETWORK:
        kind = OF_THE_NETWORK[name]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ConfigError(f"{spelt} is refused: {_spelt(value)} is no {'text' if kind is str else 'whole number'}")
        return value
    try:
        return recipes.options_of({name: value})[name]
    except ConfigError as error:
        raise ConfigError(f"{spelt}: {error.message}", hint=error.hint) from None


def _no_numbers_of_a_training() -> Iterator[str]:
    """Options that change nothing about the result."""
    return (name for name, field in Recipe.model_fields.items() if field.exclude)


def _plain(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | tuple) else value


def _inline(table: Any) -> str:
    """A range or a list of choices on one line of TOML."""
    if isinstance(table, Mapping):
        return "{" + ", ".join(f"{key} = {_spelt(value)}" for key, value in table.items()) + "}"
    return _spelt(table)


def _spelt(value: Any) -> str:
    return json.dumps(value, default=str)
