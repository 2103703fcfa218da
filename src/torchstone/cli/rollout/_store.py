"""What the verbs of ``torchstone rollout`` share: the store of a server, and how a rollout is printed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from torchstone.core.errors import ConfigError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from torchstone.serve.rollout.record import Status

STATE = Annotated[
    Path | None,
    typer.Option(help="The server's --state folder. [default: serve-state beside its bundle, if it is the only one]"),
]
STORE = Annotated[str | None, typer.Option(help="The server's --store, where it has one: postgresql://USER@HOST/NAME.")]
SILENCE = 30.0
"""Seconds without a sign of the controller after which that is said."""
CODES = {"running": 3, "promoted": 0, "rolled_back": 1, "aborted": 1, "undecided": 3}
"""Exit code of 'status'."""


@contextlib.contextmanager
def opened(state: Path | None, store: str | None, candidate: Path | None = None) -> Iterator[Connection]:
    """A transaction in the server's store; a StorageError where it cannot be used. Where neither is named, it is looked
    for among the runs here and those of the candidate's bundle."""
    from sqlalchemy.exc import SQLAlchemyError

    from torchstone.core.errors import MissingPackageError
    from torchstone.core.registry import missing_packages
    from torchstone.serve.store import tables

    if missing := missing_packages(("sqlalchemy",)):
        raise MissingPackageError("'rollout'", missing, extra="serve")
    engine = tables.engine(store if store is not None else tables.url_of(_state(state, candidate), None))
    tables.create(engine)
    try:
        with engine.begin() as connection:
            yield connection
    except SQLAlchemyError as error:
        raise tables.unreachable(engine, error) from None
    finally:
        engine.dispose()


def _state(named: Path | None, candidate: Path | None) -> Path:
    """The folder in which a server keeps its state; a ConfigError where there is none, or not one alone."""
    from torchstone.serve.settings import STATE as DEFAULT
    from torchstone.serve.store import tables

    if named is not None:
        if not (named / tables.FILE).exists():
            raise ConfigError(
                f"no server keeps its state in '{named}'",
                hint="torchstone serve BUNDLE --state DIR, then the same --state",
            )
        return named
    runs = [Path("runs"), *([candidate.resolve().parent.parent] if candidate is not None else [])]
    places = [Path(DEFAULT), *(place for run in runs for place in sorted(run.glob(f"*/{DEFAULT}")))]
    found = {place.resolve(): place for place in reversed(places) if (place / tables.FILE).exists()}
    if len(found) == 1:
        return next(iter(found))
    if not found:
        raise ConfigError(
            "no server keeps its state beside a bundle in 'runs'",
            hint=f"name its folder: --state DIR, by default '{DEFAULT}' beside the bundle that it serves",
        )
    raise ConfigError(
        f"several servers keep, or have kept, their state here: {', '.join(sorted(map(str, found.values())))}",
        hint="name the one that is meant: --state DIR",
    )


def end_by_hand(state: Path | None, store: str | None, kind: Status, json: bool) -> int:
    """End the running rollout; a ConfigError if none is running."""
    from torchstone.cli._answers import print_json
    from torchstone.serve.rollout.status import by_hand

    with opened(state, store) as connection:
        ended = by_hand(connection, kind, "by hand, on the command line", time.time())
    if ended is None:
        raise ConfigError("no rollout is running", hint="torchstone rollout status shows the last one")
    if json:
        print_json({"rollout": ended.rollout, "status": kind})
    elif kind == "promoted":
        say(f"'{ended.candidate}' is the stable model now; running servers follow within seconds")
    else:
        say(f"rollout {ended.rollout} is ended; the stable model goes on")
    return 0


def say(line: str) -> None:
    from torchstone.cli._answers import stdout

    stdout().print(line, markup=False, highlight=False, soft_wrap=True)


def show(found: Mapping[str, Any]) -> None:
    """The plan in a line, a line a monitor, the decisions, and what labels are worth."""
    from torchstone.serve.rollout.monitors import MONITORS
    from torchstone.serve.rollout.plan import LABELS

    plan, numbers = found["plan"], found["numbers"]
    say(f"rollout {plan['id']}: {found['status'].replace('_', ' ')} · {plan['mode']} of {100 * plan['weight']:g} %")
    say(f"stable     {plan['stable']}")
    say(f"candidate  {plan['candidate']}")
    say("")
    say(f"{'monitor':13} {'seen':>9} {'worse by':>9} {'at least':>9} {'at most':>9} {'allowed':>8}  harm     no worse")
    for name in (*MONITORS, "disagreement"):
        if name in numbers:
            say(_line(name, numbers[name]))
    say("")
    asked, right = numbers["asked"], numbers["right"]
    shares = [f"{side} {100 * right[side] / asked[side]:.1f} % right" for side in right if asked[side]]
    say(f"{numbers['labels']:,} labels{' (' + ', '.join(shares) + ')' if shares else ''}; {found['bias']}")
    say(f"labels: {plan['labels']}, {LABELS[plan['labels']]}")
    if numbers["held"] is not None and found["status"] == "running":
        say(f"held: {numbers['held']}")
    if found["status"] == "running" and time.time() - max(found["controller"] or 0.0, plan["started"]) > SILENCE:
        say("its controller gives no sign: does a server run with this store? The candidate gets no requests meanwhile")
    say(f"it ends undecided after {plan['horizon_labels']:,} labels or {plan['horizon_days']:g} days")
    for one in found["decisions"]:
        at = datetime.fromtimestamp(one["time"]).isoformat(sep=" ", timespec="seconds")
        say(f"{at}  {one['kind'].replace('_', ' ')}: {one['reason']}")


def _line(name: str, one: Mapping[str, Any]) -> str:
    """Points, and how far each claim is on its way to being shown."""
    mean = "—" if one["mean"] is None else f"{100 * one['mean']:.2f}"
    bounds = [f"{100 * one[bound]:.2f}" if abs(one[bound]) < 0.99 else "—" for bound in ("at_least", "at_most")]
    claims = [f"{max(0.0, one[claim] / one[f'{claim}_at']):4.0%}" for claim in ("worse", "no_worse")]
    harm = "  —  " if name == "disagreement" else claims[0]
    return (
        f"{name:13} {one['observations']:>9,} {mean:>9} {bounds[0]:>9} {bounds[1]:>9} {100 * one['margin']:>8g}  "
        f"{harm:8} {claims[1]}"
    )
