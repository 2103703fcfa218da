"""The recipes by name, each a function that says why it is as it is; and recipes from TOML files.

    base = "finetune"
    lr = 1e-3
    freeze = ["backbone"]

    [search]
    lr = {low = 1e-4, high = 1e-2, log = true}

A file names the recipe that it starts from and what it changes. ``[search]`` holds what a search may vary; a training
passes over it.
"""

from __future__ import annotations

import difflib
import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import ValidationError

from torchstone.core import files
from torchstone.core.errors import ConfigError, Mistakes, nearest, one_of
from torchstone.train.recipe import Recipe

BASE, SEARCH = "base", "search"
"""Keys of a recipe's file that are no options of a training."""
MARGIN = 30
"""Columns of an option and its value in ``described``."""
ELSEWHERE = {"learning_rate": "lr", "batch_size": "batch", "wd": "weight_decay", "optimizer": "optimiser"}
"""What other tools call some options."""
OPTIONS = tuple(name for name in Recipe.model_fields if name != "schema_version")


def scratch() -> Recipe:
    """For fresh weights: thirty epochs at a high rate.

    AdamW at 2e-3 trains most convolutional networks without being tuned for them. A tenth of the steps warms up,
    because the first gradients of fresh weights are the largest; a cosine then brings the rate to zero, so that the
    last epochs settle. Labels are smoothed a little. Images are only shifted, since mirroring or turning them would be
    wrong for digits and text: for photos say augment=standard.
    """
    return Recipe()


def finetune() -> Recipe:
    """For weights trained elsewhere: three epochs at a low rate, from the head that a probe would give.

    What the layers know already is worth keeping. A fresh head at random would pull them about before it knows anything
    itself, so it begins as the one that fits their features best, and the batch norms keep their statistics, with which
    those features were made. A layer learns at 0.8 times the rate of the one after it, since the first ones, edges and
    colours, are the same for all photos. The last epochs' weights are averaged. For photos say augment=standard.
    """
    return Recipe(
        epochs=3, batch=32, lr=3e-4, layer_decay=0.8, weight_decay=0.01, ema=0.98, label_smoothing=0.05,
        fit_head=True, freeze_norms=True, patience=3,
    )  # fmt: skip


def probe() -> Recipe:
    """For an answer within a minute: the weights stay, and a new head is fitted to their features.

    The backbone sees every image once, in the fastest runtime there is, so nothing is varied and nothing is repeated.
    It needs weights that were trained elsewhere, and says how good they are for these images before anybody fine-tunes.
    """
    return Recipe(
        epochs=1, frozen_features=True, freeze=("backbone",), augment="none", label_smoothing=0.0, weight_decay=0
    )


def quick() -> Recipe:
    """For trying whether everything works: two epochs over the images as they are.

    The rate is one that neither fresh nor trained weights break at. The accuracy means nothing.
    """
    return Recipe(epochs=2, batch=32, lr=1e-3, augment="none", patience=2)


NAMED: dict[str, Callable[[], Recipe]] = {recipe.__name__: recipe for recipe in (scratch, finetune, probe, quick)}


def by_name(recipe: str) -> Recipe:
    """The recipe of that name, or the one in that TOML file. Raises a ConfigError for what is neither, and for a file
    with an unknown key or a value that is refused."""
    if recipe in NAMED:
        return NAMED[recipe]()
    content = _content(recipe)
    options = {key: value for key, value in content.items() if key not in (BASE, SEARCH)}
    mistakes = Mistakes()
    base = mistakes.of(_base, content, recipe)
    found = mistakes.of(_told_of, recipe, lambda: changed(NAMED[base or "scratch"](), options))
    mistakes.tell()
    return found


def _told_of(recipe: str, work: Callable[[], Recipe]) -> Recipe:
    """What ``work`` returns; its ConfigError says in which file the mistake is."""
    try:
        return work()
    except ConfigError as error:
        raise error.about(f"'{recipe}'") from None


def root_of(recipe: str) -> str:
    """The named recipe that ``recipe``, a name or a TOML file, starts from."""
    return recipe if recipe in NAMED else _base(_content(recipe), recipe)


def changed(recipe: Recipe, options: Mapping[str, Any]) -> Recipe:
    """``recipe`` with other values: those of TOML, or texts as the command line gives them: dashes are as good as
    underscores, ``none`` is None where an option may be, and a list has commas (``freeze=layer1,layer2.*``). Raises a
    ConfigError that names the options and what is wrong with each."""
    mistakes = Mistakes()
    names = {key: mistakes.of(_option, key) for key in options}
    given = {name: options[key] for key, name in names.items() if name}
    parsed = {name: _parsed(name, value) for name, value in given.items()}
    found = mistakes.of(_validated, {**dict(recipe), **parsed}, given)
    mistakes.tell()
    return found


def _validated(values: Mapping[str, Any], given: Mapping[str, Any]) -> Recipe:
    """The recipe of these values; the ConfigError names each as it was ``given``."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        refused = {str(one["loc"][0]): one for one in reversed(error.errors())}
        raise one_of(
            ConfigError(
                f"{name} = {given.get(name, one['input'])!r} is refused: {one['msg'].lower()}",
                hint=f"{name}: {meant}" if (meant := meaning(name)) else None,
            )
            for name, one in reversed(refused.items())
        ) from None


def options_of(texts: Mapping[str, Any]) -> dict[str, Any]:
    """What ``changed`` would set: options by their fields' names, with values of their types."""
    whole = changed(Recipe(), texts)
    return {name: getattr(whole, name) for name in map(_option, texts)}


def to_toml(recipe: Recipe, base: str) -> str:
    """The TOML file that gives ``recipe`` again, with what it has in common with ``base`` left out."""
    usual = by_name(base)
    rows = [(name, getattr(recipe, name)) for name in OPTIONS if getattr(recipe, name) != getattr(usual, name)]
    return "".join(f"{name} = {toml_value(value)}\n" for name, value in [(BASE, base), *rows])


def described(recipe: str) -> str:
    """A TOML file that says all that the recipe does, to start one's own from."""
    root, found = root_of(recipe), by_name(recipe)
    summary, _, reasons = inspect.cleandoc(NAMED[root].__doc__ or "").partition("\n")
    lines = [f"# {root}. {summary}", *(f"# {line}".rstrip() for line in reasons.splitlines()), f'{BASE} = "{root}"', ""]
    values = {name: f"{name} = {toml_value(getattr(found, name))}" for name in OPTIONS}
    lines += [f"{text:<{MARGIN}}  # {meaning(name)}" for name, text in values.items()]
    return "\n".join(lines) + "\n"


def summary_of(name: str) -> str:
    """The first line of what a named recipe says of itself."""
    return inspect.cleandoc(NAMED[name].__doc__ or "").partition("\n")[0]


def toml_value(value: Any) -> str:
    """A value as TOML; None, which TOML lacks, as the word that ``options_of`` understands."""
    return json.dumps("none" if value is None else list(value) if isinstance(value, tuple) else value)


def _option(key: str) -> str:
    """The field of that name; a ConfigError says what was probably meant."""
    name = key.strip().replace("-", "_")
    if name in OPTIONS:
        return name
    close = [ELSEWHERE[name]] if name in ELSEWHERE else difflib.get_close_matches(name, OPTIONS, n=2, cutoff=0.6)
    close = close or [own for own in OPTIONS if name in own]
    raise ConfigError(
        f"a recipe has no option '{key}'",
        hint=f"did you mean {' or '.join(map(repr, close))}?" if close else "'torchstone recipes scratch' shows all",
    )


def short(value: Any) -> str:
    """The value of an option as a person reads it: three significant digits."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple | list):
        return "+".join(map(str, value)) or "none"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def meaning(name: str) -> str:
    """What an option does, in a few words."""
    return Recipe.model_fields[name].description or ""


def _parsed(name: str, value: Any) -> Any:
    """A text as the option takes it, where pydantic would not do that by itself."""
    annotation = Recipe.model_fields[name].annotation
    if not isinstance(value, str):
        return value
    if value.strip().lower() == "none" and type(None) in get_args(annotation):
        return None
    if get_origin(annotation) is tuple:
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _content(recipe: str) -> dict[str, Any]:
    path = Path(recipe)
    if path.suffix != ".toml":
        raise ConfigError(f"unknown recipe '{recipe}'", hint=f"{nearest(recipe, NAMED)} (or a FILE.toml)")
    return files.read_toml(path, "the recipe", hint=f"known by name: {', '.join(NAMED)}")


def _base(content: dict[str, Any], recipe: str) -> str:
    base = content.get(BASE)
    if base is None:
        raise ConfigError(f"'{recipe}' does not say what it starts from", hint='its first line: base = "finetune"')
    if base not in NAMED:
        raise ConfigError(f"'{recipe}' starts from '{base}', which is no recipe", hint=nearest(str(base), NAMED))
    return base
