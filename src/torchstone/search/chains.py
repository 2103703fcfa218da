"""The space of a search over chains: what stands in each place of a chain, in which runtime, and with which options.

    shape = ["none", "prune", "resolution"]     # what the network is: one of these
    training = ["none", "finetune"]             # what it learns then
    arithmetic = ["none", "int8", "bf16"]       # what it computes in
    runtime = ["openvino"]

    [prune]
    ratio = {low = 0.1, high = 0.5, step = 0.1}
    importance = "taylor"                       # one value: it is always this

Which steps there are for a place, and the ranges of their options, stands in the file of each step (``Step.place``,
``Step.ranges``); a TOML file changes what it names. Orders that cannot be built are not drawn: a place offers only what
the runtime takes, and what trains by itself is followed by no training.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from torchstone.compress import chain
from torchstone.core import files, registry
from torchstone.core.contracts import Place
from torchstone.core.errors import ChainError, ConfigError, MissingPackageError, nearest
from torchstone.core.values import Artifact
from torchstone.search import space
from torchstone.search.space import Choices, Range, Space

NONE = "none"
"""What stands in a place that is left out."""
RUNTIME = "runtime"
PLACES: tuple[Place, ...] = get_args(Place)
AT_THE_END: Place = "arithmetic"
"""The place whose steps differ from runtime to runtime."""
BASELINE = "torch"
"""Runtime of the baseline, which a search leaves out unless it is asked for: little gets faster in it."""


@dataclass(frozen=True, kw_only=True)
class Declared:
    """What a space file says."""

    places: Mapping[str, tuple[str, ...]]
    """By place, or ``runtime``: what it offers."""
    options: Mapping[str, Mapping[str, Any]]
    """By step: what its options vary between, as TOML gives it."""
    where: str
    """The file, as a message quotes it."""


NOTHING = Declared(places={}, options={}, where="the usual space")


def of_file(path: Path) -> Declared:
    """The space that a TOML file declares; a ConfigError names a place, a step or an option that there is not."""
    where = f"'{path}'"
    places: dict[str, tuple[str, ...]] = {}
    options: dict[str, Mapping[str, Any]] = {}
    by_place = {place: _steps_of(place) for place in PLACES}
    steps = [name for names in by_place.values() for name in names]
    for key, given in files.read_toml(path, "the space").items():
        if key in PLACES or key == RUNTIME:
            known = registry.runtimes.names() if key == RUNTIME else [NONE, *by_place[key]]
            places[key] = _names(key, given, known, where)
        elif key in steps and isinstance(given, Mapping):
            options[key] = given
        else:
            raise ConfigError(f"unknown key '{key}' in {where}", hint=nearest(key, [*PLACES, RUNTIME, *steps]))
    for name in options:
        place = next(place for place in PLACES if name in by_place[place])
        if name not in places.get(place, (name,)):
            raise ConfigError(f"{where} has a table [{name}], but its {place} offers no '{name}'",
                              hint=f"{place} = [\"{name}\", …]")  # fmt: skip
    return Declared(places=places, options=options, where=where)


def _names(key: str, given: Any, known: Sequence[str], where: str) -> tuple[str, ...]:
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list) or not names or len({*map(str, names)}) < len(names):
        raise ConfigError(f"{key} = {json.dumps(given)} in {where} is refused: it is a list of different names")
    for name in names:
        if name not in known:
            raise ConfigError(f"{key} = {json.dumps(given)} in {where}: unknown '{name}'",
                              hint=nearest(str(name), known))  # fmt: skip
    return tuple(names)


def _steps_of(place: Place) -> list[str]:
    return [name for name in registry.steps.names() if registry.steps.get(name).place == place]


def of_model(artifact: Artifact, declared: Declared = NOTHING) -> dict[str, Range | Choices]:
    """The space of the chains of this model: what a file declares, else what is installed and fits. Options are named
    ``step.option``, those of a step with targets ``step@target.option``. Raises a ConfigError for what no chain takes,
    a MissingPackageError for what was asked for and is not installed."""
    found: dict[str, Range | Choices] = {}
    goes_on: list[str] = []  # shapes that training may follow
    for place in PLACES:
        if place == AT_THE_END:
            continue
        names = _offered(place, None, artifact, declared)
        found[place] = Choices(values=names, given={"shape": tuple(goes_on)} if found else {})
        for name in names:
            own = _options_of(name, None, artifact, declared, {place: (name,)})
            found |= own
            if place == "shape" and not _trains(name, own):
                goes_on.append(name)
    runtimes = declared.places.get(RUNTIME) or tuple(
        name for name in registry.runtimes.names()
        if name != BASELINE and _can_be_made_for(name)
    )  # fmt: skip
    if not runtimes:
        raise ConfigError("no runtime but torch is installed, and in it little gets faster",
                          hint="pip install 'torchstone[openvino]'")  # fmt: skip
    found[RUNTIME] = Choices(values=runtimes)
    for runtime in runtimes:
        names = _offered(AT_THE_END, runtime, artifact, declared)
        found[f"{AT_THE_END}@{runtime}"] = Choices(values=names, given={RUNTIME: (runtime,)})
        for name in names:
            target = runtime if _has_targets(name) else None
            found |= _options_of(name, target, artifact, declared, {f"{AT_THE_END}@{runtime}": (name,)})
    return found


def _offered(place: Place, runtime: str | None, artifact: Artifact, declared: Declared) -> tuple[str, ...]:
    """The names of the steps that this place offers in this runtime, with ``none`` unless a file leaves it out."""
    asked = declared.places.get(place)
    found = []
    for name in asked if asked is not None else [NONE, *_steps_of(place)]:
        if name == NONE:
            found.append(name)
            continue
        step = registry.steps.get(name)
        if runtime is not None and step.targets and runtime not in step.targets:
            continue
        wanted = asked is not None or name in declared.options
        missing = registry.missing_packages((*step.requires, *step.requires_for(runtime)))
        if missing and wanted:
            raise MissingPackageError(f"the step '{name}' of {declared.where}", missing)
        if wanted or (not missing and step.ranges(artifact) is not None):
            found.append(name)
    return tuple(found) or (NONE,)


def _options_of(
    name: str, target: str | None, artifact: Artifact, declared: Declared, given: space.Condition
) -> dict[str, Range | Choices]:
    """What varies of a step: its own ranges, and those of the file in their stead. Options and values of its own that
    another target has are left out."""
    if name == NONE:
        return {}
    step = registry.steps.get(name)
    own, asked = dict(step.ranges(artifact) or {}), declared.options.get(name, {})
    known = {key.replace("-", "_"): value for key, value in asked.items()}
    for option in known:
        if option not in step.Config.model_fields:
            raise ConfigError(f"'{name}' in {declared.where} has no option '{option}'",
                              hint=nearest(option, step.Config.model_fields))  # fmt: skip
    required = step.value_option
    if required and step.Config.model_fields[required].is_required() and not {required} & (own | known).keys():
        raise ConfigError(f"'{name}' needs a range of its {required} in {declared.where}",
                          hint=f"[{name}], and below it: {required} = [ … ]")  # fmt: skip
    found: dict[str, Range | Choices] = {}
    for option, ends in (own | known).items():
        listed = ends if isinstance(ends, list | dict) else [ends]
        if option not in known and isinstance(listed, list):
            listed = [value for value in listed if _refusal(name, target, option, value, own | known) is None]
            if len(listed) < 2:
                continue
        spelt = f"{option} = {json.dumps(ends)} in [{name}] of {declared.where}"
        options = space.declared(option, listed, spelt, lambda _, value, __: value, least=1)
        refusals = [_refusal(name, target, option, value, own | known) for value in _ends(options)]
        if not any(refusals):
            found[_parameter(name, target, option)] = replace(options, given=given)
        elif not _is_of_another_target(name, target, option, options, own | known):
            first = next(why for why in refusals if why)
            raise ConfigError(f"{spelt}: {first.message}", hint=first.hint)
    return found


def _is_of_another_target(
    name: str, target: str | None, option: str, options: Range | Choices, beside: Mapping[str, Any]
) -> bool:
    others = [other for other in registry.steps.get(name).targets if other != target]
    return any(not any(_refusal(name, other, option, value, beside) for value in _ends(options)) for other in others)


def _ends(options: Range | Choices) -> list[Any]:
    return list(options.values) if isinstance(options, Choices) else [options.low, options.high]


def _refusal(name: str, target: str | None, option: str, value: Any, beside: Mapping[str, Any]) -> ChainError | None:
    """Why no chain takes this value of an option, alone or with one of another; None: one does. What it does not go
    with is found when it is drawn."""
    others = {other: _listed(ends) for other, ends in beside.items() if other != option}
    required = registry.steps.get(name).value_option or ""
    least = {required: others[required][0]} if required in others else {}
    refusal = None
    for more in [{}, *({other: one} for other, values in others.items() for one in values)]:
        try:
            chain.plan(_spelt(name, target, {**least, **more, option: value}), check_packages=False)
        except ChainError as error:
            refusal = refusal or error
        else:
            return None
    return refusal


def _listed(ends: Any) -> list[Any]:
    """Values of what a TOML file, or a step, gives for an option."""
    if isinstance(ends, Mapping):
        return [ends[end] for end in ("low", "high") if end in ends]
    return list(ends) if isinstance(ends, list) else [ends]


def _trains(name: str, options: Space) -> bool:
    """Whether a step trains by itself, with the least that its ranges give."""
    if name == NONE:
        return False
    given = {key.partition(".")[2]: _ends(value)[0] for key, value in options.items()}
    return chain.sketch(chain.plan(_spelt(name, None, given), check_packages=False)) is not None


def spelt(values: Mapping[str, Any]) -> str:
    """The chain of what was drawn; empty: the baseline itself."""
    runtime = values[RUNTIME]
    last = values[f"{AT_THE_END}@{runtime}"]
    names = [values["shape"], values.get("training", NONE), last]
    parts = []
    for name in names:
        if name != NONE:
            target = runtime if name == last and _has_targets(name) else None
            start = _parameter(name, target, "")
            given = {key.removeprefix(start): value for key, value in values.items() if key.startswith(start)}
            parts.append(_spelt(name, target, given))
    if last == NONE and runtime != BASELINE:
        parts.append(_exporter(runtime))
    text = "+".join(parts)
    return f"{text}@{runtime}" if last != NONE and not _has_targets(last) else text


def starts(options: Space) -> list[dict[str, Any]]:
    """What the first trials are told to take: what costs no training, in every runtime, with the options that each step
    has by default. The later ones have to beat it."""
    if not all(options[place].holds(NONE) for place in ("shape", "training")):
        return []
    found = []
    for runtime in _ends(options[RUNTIME]):
        for last in _ends(options[f"{AT_THE_END}@{runtime}"]):
            taken = {"shape": NONE, "training": NONE, RUNTIME: runtime, f"{AT_THE_END}@{runtime}": last}
            if last != NONE:
                fields = registry.steps.get(last).Config.model_fields
                target = runtime if _has_targets(last) else None
                taken |= {_parameter(last, target, option): field.default for option, field in fields.items()}
            if last != NONE or runtime != BASELINE:
                found.append({name: value for name, value in taken.items() if name in options})
    return found


def _has_targets(name: str) -> bool:
    return name != NONE and bool(registry.steps.get(name).targets)


def _parameter(name: str, target: str | None, option: str) -> str:
    return f"{name}@{target}.{option}" if target else f"{name}.{option}"


def _can_be_made_for(runtime: str) -> bool:
    """Whether the packages are there that make a file for this runtime, and run it."""
    needed = (*registry.runtimes.get(runtime).requires, *registry.steps.get(_exporter(runtime)).requires)
    return not registry.missing_packages(needed)


def _exporter(runtime: str) -> str:
    native = registry.runtimes.get(runtime).formats[0]
    return next(name for name in registry.steps.names() if registry.steps.get(name).produces == native)


def _spelt(name: str, target: str | None, given: Mapping[str, Any]) -> str:
    """A step as a chain spells it."""
    rest = {option: _word(value) for option, value in given.items()}
    value = rest.pop(registry.steps.get(name).value_option or "", None)
    text = name if value is None else f"{name}={value}"
    if rest:
        text += ":" + ",".join(f"{option}={rest[option]}" for option in sorted(rest))
    return f"{text}@{target}" if target else text


def _word(value: Any) -> str:
    """A value as a chain spells it: of a float that nobody wrote down three digits, which are enough."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else f"{value:.3g}"
    return str(value)
