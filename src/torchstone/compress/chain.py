"""The grammar of chains and their plan.

A chain is ``step[=value][:key=value,…][@target]`` joined by ``+``: ``prune=0.3+finetune=2+int8@openvino``. The plan
inserts the conversions that are missing and is checked from end to end before anything is built.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from pydantic import ValidationError

from torchstone.core import registry
from torchstone.core.contracts import Step, StepConfig
from torchstone.core.errors import ChainError, MissingPackageError, nearest
from torchstone.core.values import Format
from torchstone.runtimes import default_runtime

STEP = re.compile(
    r"(?P<name>[a-z][a-z0-9_]*)(=(?P<value>[^:@+]+))?(:(?P<options>[^@+]+))?(@(?P<target>[a-z][a-z0-9_]*))?"
)


@dataclass(frozen=True, kw_only=True)
class PlannedStep:
    """One step, ready to run."""

    name: str
    step: Step
    config: StepConfig
    target: str | None
    inserted: bool
    """True for a conversion that the chain did not spell out."""

    def __str__(self) -> str:
        given = self.config.model_dump(exclude_unset=True)
        value = given.pop(self.step.value_option, None) if self.step.value_option else None
        text = self.name + (f"={value}" if value is not None else "")
        if given:
            text += ":" + ",".join(f"{key}={given[key]}" for key in sorted(given))
        return text + (f"@{self.target}" if self.target and self.step.targets else "")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A whole chain: its steps in order and the runtime that it ends in."""

    text: str
    """As typed."""
    steps: tuple[PlannedStep, ...]
    runtime: str

    @property
    def name(self) -> str:
        """What the candidate is called."""
        return named(self.text, self.runtime)

    @property
    def free(self) -> bool:
        """Whether the weights stay what they were."""
        return all(planned.step.is_free(planned.config) for planned in self.steps)

    def __str__(self) -> str:
        shown = " + ".join(f"({planned})" if planned.inserted else str(planned) for planned in self.steps)
        return f"{shown} in {self.runtime}"

    def missing_packages(self) -> list[str]:
        """What would have to be installed."""
        needed = {name for planned in self.steps for name in planned.step.requires}
        needed |= {name for planned in self.steps for name in planned.step.requires_for(planned.target)}
        needed |= set(registry.runtimes.get(self.runtime).requires)
        return registry.missing_packages(tuple(sorted(needed)))


def named(chain: str, runtime: str) -> str:
    """What a candidate is called: its chain, with its runtime unless that is said already."""
    said = chain.endswith((f"@{runtime}", f"+{runtime}")) or chain == runtime
    return chain if said else f"{chain}@{runtime}"


def keeps_weights(text: str) -> bool:
    """Whether a chain that was built once left the weights what they were."""
    return all(planned.step.is_free(planned.config) for planned in (_read(part, text) for part in text.split("+")))


def plan(text: str, *, start: Format = "torch", check_packages: bool = True) -> Plan:
    """Parse and check a chain that starts from an artifact of format ``start``.

    Raises a ChainError with a hint for an unknown step, option or target, a value out of range, or an order that cannot
    be built; a MissingPackageError when something is not installed.
    """
    asked = [_parse(part, text) for part in text.split("+")]
    final_target = asked[-1].target
    planned: list[PlannedStep] = []
    made_by, now = "the model", start
    for step in asked:
        wanted = _wanted_formats(step)
        problem = f"'{step.name}' takes {' or '.join(wanted)}, {made_by} made {now}"
        planned += _conversions(now, wanted, problem, f"put '{step.name}' before {made_by}")
        now = _format_after(planned, start)
        planned.append(step)
        now, made_by = step.step.produces or now, f"'{step.name}'"
    for step, follower in pairwise(asked):
        if step.step.final:
            raise ChainError(f"'{step.name}' must come last, '{follower.name}' follows it", hint="choose one of them")
    runtime = final_target or default_runtime(now)
    if now not in registry.runtimes.get(runtime).formats:
        native = registry.runtimes.get(runtime).formats[0]
        planned += _conversions(now, (native,), f"{runtime} opens {native}, {made_by} made {now}", None)
    result = Plan(text=text, steps=tuple(planned), runtime=runtime)
    if check_packages and (missing := result.missing_packages()):
        raise MissingPackageError(f"the chain '{text}'", missing)
    return result


def sketch(found: Plan) -> str | None:
    """The chain of the same shape without any training: it is built in seconds, and is as fast as the whole chain will
    be. None where nothing is trained, or nothing but training is asked for."""
    asked = [planned for planned in found.steps if not planned.inserted]
    spelt = [planned.step.sketch(planned.config) for planned in asked]
    if all(part is None for part in spelt):
        return None
    kept = [str(planned) if part is None else part for planned, part in zip(asked, spelt, strict=True)]
    text = "+".join(part for part in kept if part)
    if not text:
        return None
    return text if asked[-1].target is None or asked[-1].step.targets else f"{text}@{found.runtime}"


def _parse(part: str, chain: str) -> PlannedStep:
    """A step with options that go together."""
    planned = _read(part, chain)
    planned.step.check(planned.config, planned.target)
    return planned


def _read(part: str, chain: str) -> PlannedStep:
    match = STEP.fullmatch(part)
    if match is None:
        word = re.split("[=:@]", part)[0].strip().lower()
        meant = f"did you mean '{word}'? " if word in registry.steps.names() else ""
        raise ChainError(
            f"'{part}' in the chain '{chain}' is not a step",
            hint=f"{meant}a step is written name[=value][:key=value,key=value][@target], without blanks",
        )
    name, target = match["name"], match["target"]
    if name not in registry.steps.names():
        raise ChainError(f"unknown step '{name}' in the chain '{chain}'", hint=nearest(name, registry.steps.names()))
    step = registry.steps.get(name)
    if target is not None:
        known = step.targets or tuple(registry.runtimes.names())
        if target not in known:
            raise ChainError(f"'{name}' cannot be built for '{target}'", hint=nearest(target, known))
    elif step.targets:
        target = step.targets[0]
    options: dict[str, str] = {}
    if match["value"] is not None:
        if step.value_option is None:
            raise ChainError(f"'{name}' takes no value, but '{part}' gives one", hint=f"write '{name}' alone")
        options[step.value_option] = match["value"]
    for pair in (match["options"] or "").split(","):
        key, equals, value = pair.partition("=")
        if pair and not equals:
            raise ChainError(f"'{pair}' in '{part}' is not key=value", hint=nearest(pair, step.Config.model_fields))
        if pair:
            options[key] = value
    config = _config(step, name, options)
    return PlannedStep(name=name, step=step, config=config, target=target, inserted=False)


def _config(step: Step, name: str, options: dict[str, Any]) -> StepConfig:
    known = step.Config.model_fields
    for key in options:
        if key not in known:
            raise ChainError(f"'{name}' has no option '{key}'", hint=nearest(key, known))
    try:
        return step.Config(**options)
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0]) if first["loc"] else "value"
        about = known[option].description if option in known else None
        if first["type"] == "missing":
            wanted = f"{name}={option.upper()}" if option == step.value_option else f"{name}:{option}=…"
            raise ChainError(f"'{name}' needs its {option}: {wanted}", hint=about) from None
        given = options.get(option)
        said = f"'{name}': {option}={given!r} is refused: {first['msg']}"
        raise ChainError(said, hint=_as_share(given, first) or about) from None


def _as_share(given: Any, error: Any) -> str | None:
    """What was meant by a percentage where a share is wanted."""
    limits, text = error.get("ctx", {}), str(given).strip()
    try:
        per_cent = float(text.removesuffix("%"))
    except ValueError:
        return None
    if not text.endswith("%") and limits.get("lt", limits.get("le")) != 1:
        return None
    if text.endswith("%") or 5 <= per_cent < 100:
        return f"a share: {per_cent / 100:g} is {per_cent:g} %"
    return "a share of the whole: 0.3 is 30 %"


def _wanted_formats(planned: PlannedStep) -> tuple[Format, ...]:
    """What the step takes for its target: the target's native format, or anything it accepts."""
    if planned.step.targets and planned.target:
        native = registry.runtimes.get(planned.target).formats[0]
        if native in planned.step.accepts:
            return (native,)
    return planned.step.accepts


def _format_after(planned: list[PlannedStep], start: Format) -> Format:
    now = start
    for step in planned:
        now = step.step.produces or now
    return now


def _conversions(now: Format, wanted: tuple[Format, ...], problem: str, hint: str | None) -> list[PlannedStep]:
    """The shortest way of exporters from ``now`` to one of ``wanted``; a ChainError when there is none."""
    exporters = [exporter for exporter in registry.steps.names() if registry.steps.get(exporter).produces is not None]
    ways: list[tuple[Format, list[str]]] = [(now, [])]
    for reached, path in ways:
        if reached in wanted:
            return [_inserted(exporter) for exporter in path]
        for exporter in exporters:
            step = registry.steps.get(exporter)
            if reached in step.accepts and exporter not in path and step.produces is not None:
                ways.append((step.produces, [*path, exporter]))
    raise ChainError(problem, hint=hint)


def _inserted(name: str) -> PlannedStep:
    step = registry.steps.get(name)
    return PlannedStep(name=name, step=step, config=step.Config(), target=None, inserted=True)
