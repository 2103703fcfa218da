"""What is printed of the steps of a chain."""

from __future__ import annotations

import inspect
import re
from typing import Any

from torchstone.cli._answers import print_json, stdout
from torchstone.core import registry
from torchstone.core.contracts import Step

WIDTH = 13


def steps(name: str | None, json: bool) -> int:
    """All steps with what they are for, or one of them with its options."""
    names = [name] if name else registry.steps.names()
    known = {one: registry.steps.get(one) for one in names}
    if json:
        print_json({one: {"about": about(step), "targets": step.targets, "value": step.value_option,
                          "options": options(step)} for one, step in known.items()})  # fmt: skip
        return 0
    out = stdout()
    lines = [f"{one:<{WIDTH}}{summary(step)}" for one, step in known.items()]
    if name:
        step = known[name]
        lines = [about(step), ""]
        if step.targets:
            lines.append(f"{'@':<{WIDTH}}{', '.join(step.targets)}; by default the first")
        for option, row in options(step).items():
            short = f" (or {name}=…)" if option == step.value_option else ""
            lines.append(f"{option:<{WIDTH}}{row['description']}; {row['default']}{short}")
    for line in lines:
        out.print(line, markup=False, highlight=False, soft_wrap=True)
    return 0


def about(step: Step) -> str:
    """What the step's docstring says, without its markup."""
    return (inspect.getdoc(type(step)) or "").replace("``", "'")


def summary(step: Step) -> str:
    """The first sentence of it, without the way it is spelt."""
    first = " ".join(about(step).split("\n\n")[0].split())
    first = re.sub(r"^'[^']*': ", "", first)
    first = re.split(r"(?<=[.:])(?<!et al\.) ", first, maxsplit=1)[0].rstrip(":")
    return first[:1].upper() + first[1:]


def options(step: Step) -> dict[str, dict[str, Any]]:
    """By name, what each option means, and its value where none is given."""
    found = {}
    for name, field in step.Config.model_fields.items():
        if name != "schema_version":
            default = "must be given" if field.is_required() else f"by default {spelt(field.default)}"
            found[name] = {"description": field.description or "", "default": default}
    return found


def spelt(value: Any) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else f"{value}"
