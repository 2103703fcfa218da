"""What the dry runs print: each step of each chain before it is taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torchstone.cli import _answers
from torchstone.cli._tables import is_narrow

if TYPE_CHECKING:
    from torchstone.compress.foresight import Foreseen, ForeseenStep


def foreseen(found: Sequence[Foreseen], when: Sequence[str] = (), *, json: bool) -> int:
    """A table of the steps and of what each chain ends in; in brackets the conversions that the plan inserts. ``when``
    says of each chain on what it depends whether it is built."""
    whens = list(when) or [""] * len(found)
    if json:
        _answers.print_json([_row(one, when) for one, when in zip(found, whens, strict=True)])
        return 0
    from rich.markup import escape
    from rich.table import Table

    out = _answers.stdout()
    narrow = is_narrow(out.width)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1 if narrow else 2, 0, 0))
    table.add_column("", justify="right")
    table.add_column("step", overflow="fold", no_wrap=narrow)
    if not narrow:
        table.add_column("takes → makes", no_wrap=True)
    table.add_column("needs")
    table.add_column("expected", justify="right", no_wrap=True)
    table.add_column("as measured by")
    for number, (one, condition) in enumerate(zip(found, whens, strict=True), 1):
        for place, step in enumerate(one.steps):
            name = escape(f"({step.planned})" if step.planned.inserted else str(step.planned))
            formats = [] if narrow else [f"{step.takes} → {step.makes}"]
            name = name.replace(":", ":\n  ").replace(",", ",\n  ") if narrow else name
            table.add_row("" if place else str(number), name, *formats, _needs(step), *_cost(step))
        built = f"[bold]tried {condition}[/bold]" if condition else ""
        empty = [""] * (1 if narrow else 2)
        table.add_row("", f"[bold]in {one.plan.runtime}[/bold]", *empty, f"[bold]{_total(one)}[/bold]", built)
    out.print(table)
    chains = f"{len(found)} chain{'s' if len(found) > 1 else ''}"
    out.print(f"\n{chains}: {_sum(found)}. Nothing was built.", highlight=False, soft_wrap=True)
    return 0


def _row(one: Foreseen, when: str) -> dict[str, Any]:
    """One chain for machines."""
    steps = [
        {
            "step": str(step.planned),
            "inserted": step.planned.inserted,
            "takes": step.takes,
            "makes": step.makes,
            "needs": {**vars(step.needs), "val": step.val},
            "shared_with": step.shared_with,
            "seconds": step.expected.seconds,
            "at_least": step.expected.at_least,
            "basis": step.expected.basis,
        }
        for step in one.steps
    ]
    plan = one.plan
    told = {"chain": plan.text, "name": plan.name, "runtime": plan.runtime, "free": plan.free}
    return {
        **told,
        **({"when": when} if when else {}),
        "seconds": one.seconds,
        "at_least": one.at_least,
        "steps": steps,
    }


def _needs(step: ForeseenStep) -> str:
    needs = step.needs
    parts = []
    if epochs := needs.epochs or needs.own_epochs:
        parts.append(f"{epochs} epoch{'s' if epochs > 1 else ''}" + (" of its own network" if needs.own_epochs else ""))
    if needs.answers:
        parts.append(f"{needs.answers} view{'s' if needs.answers > 1 else ''} of a teacher")
    if needs.calibration:
        parts.append(f"{needs.calibration} calibration images")
    return ", ".join([*parts, *(["val"] if step.val else [])])


def _cost(step: ForeseenStep) -> tuple[str, str]:
    """What it takes, and why one thinks so."""
    expected = step.expected
    if step.shared_with is not None:
        return "—", f"built once, for {step.shared_with + 1}"
    if expected.seconds is None:
        return "unknown", expected.basis
    return ("at least " if expected.at_least else "") + _duration(expected.seconds), expected.basis


def _total(one: Foreseen) -> str:
    """Of the whole chain, without what an earlier one builds."""
    if one.seconds is None:
        return "unknown"
    return ("at least " if one.at_least else "") + _duration(one.seconds)


def _sum(found: Sequence[Foreseen]) -> str:
    """Of all chains."""
    known = sum(one.seconds or 0.0 for one in found)
    open_ones = [one for one in found if one.seconds is None or one.at_least]
    if not known and open_ones:
        return "how long it takes is unknown"
    more = f", without the steps of unknown time in {len(open_ones)} of them" if open_ones else ""
    return f"{_duration(known)}{more}"


def _duration(seconds: float) -> str:
    """Two significant places of what people read: seconds, minutes, hours."""
    for limit, unit, size in ((90, "s", 1), (5400, "min", 60)):
        if seconds < limit:
            return f"{seconds / size:.2g} {unit}" if seconds / size < 10 else f"{seconds / size:.0f} {unit}"
    return f"{seconds / 3600:.1f} h"
