"""The rows of rollouts in the store: started, followed, ended, with every decision and its numbers."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa
from pydantic import ValidationError
from sqlalchemy.exc import IntegrityError

from torchstone.core import console
from torchstone.core.artifact import load_artifact
from torchstone.core.errors import ArtifactError, ConfigError, TorchstoneError
from torchstone.core.values import Artifact
from torchstone.serve.rollout.plan import Plan
from torchstone.serve.store import reading
from torchstone.serve.store.tables import decisions, feedback, heartbeats, predictions, rollouts, serving

Status = Literal["running", "promoted", "rolled_back", "aborted", "undecided"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """A rollout as it stands in the store."""

    plan: Plan
    status: Status
    state: dict[str, Any]
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What was decided of a rollout, and on which numbers."""

    kind: str
    reason: str
    numbers: Mapping[str, Any]
    time: float


class Serving(NamedTuple):
    """What answers as a model: its bundle and the id of its artifact."""

    bundle: str
    artifact: str


def new_id() -> str:
    return secrets.token_hex(4)


def register(connection: sa.Connection, model: str, given: Path, artifact: str) -> Path:
    """Note that a server starts to answer as ``model`` with the bundle ``given``; the bundle that it is to serve.

    That is another one where a rollout promoted it after the last start with ``given``. A running rollout goes on if it
    was started for this bundle, else it is aborted.
    """
    place = given.resolve()
    row = connection.execute(sa.select(serving).where(serving.c.model == model)).one_or_none()
    if row is not None and row.given == str(place) and row.bundle != row.given:
        try:
            check_id(Path(row.bundle), row.artifact)
            console.say(f"'{model}' is '{row.bundle}', which a rollout promoted, not '{given}'")
            return Path(row.bundle)
        except TorchstoneError as error:
            console.say(f"what a rollout promoted cannot be served, '{given}' is served again: {error}")
    values = {"given": str(place), "bundle": str(place), "artifact": artifact, "time": time.time()}
    if row is None:
        connection.execute(sa.insert(serving).values(model=model, **values))
    else:
        connection.execute(sa.update(serving).where(serving.c.model == model).values(**values))
    _end_of_others(connection, model, artifact, "the server was started with another stable model")
    return given


def opened(connection: sa.Connection, model: str, bundle: str, artifact: str) -> None:
    """Note that the bundle that answers as ``model`` was opened (again) and is ``artifact`` now. A running rollout that
    was started against another one is aborted: what it has counted says nothing of this one."""
    row = connection.execute(sa.select(serving).where(serving.c.model == model)).one_or_none()
    if row is None or row.bundle != bundle:  # another one was promoted meanwhile
        return
    if row.artifact != artifact:
        values = {"artifact": artifact, "time": time.time()}
        connection.execute(sa.update(serving).where(serving.c.model == model).values(**values))
    _end_of_others(connection, model, artifact, "the stable bundle was loaded again, and is another model now")


def _end_of_others(connection: sa.Connection, model: str, artifact: str, reason: str) -> None:
    """Abort the running rollout of ``model`` if it was started against another artifact."""
    found = running(connection)
    if found is None or found.plan.model != model or found.plan.stable_id == artifact:
        return
    decision = Decision(kind="aborted", reason=reason, numbers={}, time=time.time())
    if end(connection, found, "aborted", decision):
        console.say(f"rollout {found.plan.id}: aborted: {reason}")


def check_id(bundle: Path, artifact: str) -> None:
    """Raise an ArtifactError if the directory does not hold ``artifact`` (any more)."""
    if load_artifact(bundle).id != artifact:
        raise ArtifactError(
            f"'{bundle}' holds another model than it did when the rollout was started",
            hint="start a rollout of what it holds now, or give each bundle a directory of its own",
        )


def stable(connection: sa.Connection, model: str | None) -> tuple[str, Path, str]:
    """Name, bundle and artifact id of what the server answers with; a ConfigError where it is not clear or unknown."""
    rows = {row.model: row for row in connection.execute(sa.select(serving))}
    if not rows:
        raise ConfigError("no server has been started with this store", hint="torchstone serve BUNDLE --state DIR")
    if model is None and len(rows) > 1:
        raise ConfigError("the server has several models", hint=f"--model {' or '.join(sorted(rows))}")
    name = next(iter(rows)) if model is None else model
    if name not in rows:
        raise ConfigError(f"the server has no model '{name}'", hint=f"known: {', '.join(sorted(rows))}")
    return name, Path(rows[name].bundle), rows[name].artifact


def serving_of(connection: sa.Connection, model: str) -> Serving | None:
    """What answers as ``model``; None if no server has said."""
    query = sa.select(serving.c.bundle, serving.c.artifact).where(serving.c.model == model)
    row = connection.execute(query).one_or_none()
    return None if row is None else Serving(*row)


def beat(connection: sa.Connection, now: float) -> None:
    """The controller looks, and gives a sign of it."""
    mine = heartbeats.c.name == "controller"
    if connection.execute(sa.update(heartbeats).where(mine).values(time=now)).rowcount == 0:
        connection.execute(sa.insert(heartbeats).values(name="controller", time=now))


def beat_of(connection: sa.Connection) -> float | None:
    """When the controller last gave a sign; None if it never did."""
    return connection.scalar(sa.select(heartbeats.c.time).where(heartbeats.c.name == "controller"))


def check_candidate(candidate: Artifact, candidate_path: Path, stable_model: Artifact, stable_path: Path) -> None:
    """Raise the error of a bundle that cannot take the stable one's place."""
    if candidate_path.resolve() == stable_path.resolve():
        raise ConfigError(f"'{candidate_path}' is the stable bundle itself", hint="name another one")
    if candidate.classes != stable_model.classes:
        raise ArtifactError(
            f"the candidate knows {len(candidate.classes)} classes, not the stable model's {len(stable_model.classes)} "
            "in their order: their answers cannot be compared",
            hint="retrain on the same classes, or start a server of its own for it",
        )


def start(connection: sa.Connection, plan: Plan) -> Rollout:
    """Write the rollout down; a ConfigError if another one is running. From here on the workers see it."""
    state = {
        "predictions": reading.end(connection, predictions),
        "feedback": reading.end(connection, feedback),
        "since": reading.end(connection, predictions),
    }
    row = {"id": plan.id, "started": plan.started, "status": "running", "state": state, "version": 0}
    try:
        connection.execute(sa.insert(rollouts).values(plan=plan.model_dump(mode="json"), **row))
    except IntegrityError:
        raise ConfigError(
            "another rollout is running", hint="torchstone rollout status; torchstone rollout abort ends it"
        ) from None
    note(connection, plan.id, Decision(
        kind="started", reason=f"{plan.mode} of {100 * plan.weight:g} %", numbers=plan.model_dump(mode="json"),
        time=plan.started,
    ))  # fmt: skip
    return Rollout(plan=plan, status="running", state=state, version=0)


def running(connection: sa.Connection) -> Rollout | None:
    """The rollout that is going on."""
    return _rollout(connection, sa.select(rollouts).where(rollouts.c.status == "running"))


def latest(connection: sa.Connection) -> Rollout | None:
    """The rollout that was started last, running or not."""
    return _rollout(connection, sa.select(rollouts).order_by(rollouts.c.started.desc()).limit(1))


def status_of(connection: sa.Connection, rollout: str) -> Status | None:
    """Whether it runs, or how it ended; None where there is no such rollout."""
    return connection.execute(sa.select(rollouts.c.status).where(rollouts.c.id == rollout)).scalar_one_or_none()


def keep(connection: sa.Connection, found: Rollout, state: Mapping[str, Any]) -> bool:
    """Write what was counted; False if somebody else has changed the rollout since it was read."""
    return _change(connection, found, {"state": dict(state)})


def end(connection: sa.Connection, found: Rollout, status: Status, decision: Decision) -> bool:
    """End a rollout, with the numbers of that decision; a promoted candidate is the stable model from here on. False
    if somebody else has changed the rollout since it was read. Raises an ArtifactError, and changes nothing, if the
    candidate's directory does not hold what is to be promoted."""
    if status == "promoted":
        check_id(Path(found.plan.candidate), found.plan.candidate_id)
    if not _change(connection, found, {"status": status}):
        return False
    if status == "promoted":
        values = {"bundle": found.plan.candidate, "artifact": found.plan.candidate_id, "time": decision.time}
        connection.execute(sa.update(serving).where(serving.c.model == found.plan.model).values(**values))
    note(connection, found.plan.id, decision)
    return True


def abandon(connection: sa.Connection, decision: Decision) -> str:
    """Abort the running rollout without reading what it was told; its id."""
    rollout = connection.execute(sa.select(rollouts.c.id).where(rollouts.c.status == "running")).scalar_one()
    connection.execute(sa.update(rollouts).where(rollouts.c.id == rollout).values(status="aborted"))
    note(connection, rollout, decision)
    return rollout


def decided(connection: sa.Connection, rollout: str) -> list[Decision]:
    """What was decided of a rollout, the first first."""
    query = sa.select(decisions).where(decisions.c.rollout == rollout).order_by(decisions.c.seq)
    return [
        Decision(kind=row.kind, reason=row.reason, numbers=row.numbers, time=row.time)
        for row in connection.execute(query)
    ]


def _rollout(connection: sa.Connection, query: sa.Select[Any]) -> Rollout | None:
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    try:
        plan = Plan.model_validate(row.plan)
    except ValidationError:
        raise of_another_version(row.id) from None
    return Rollout(plan=plan, status=row.status, state=row.state, version=row.version)


def of_another_version(rollout: str) -> ConfigError:
    """What is said of a rollout that cannot be read."""
    return ConfigError(
        f"rollout {rollout} was written by another version of torchstone", hint="torchstone rollout abort ends it"
    )


def _change(connection: sa.Connection, found: Rollout, values: Mapping[str, Any]) -> bool:
    mine = (rollouts.c.id == found.plan.id) & (rollouts.c.version == found.version) & (rollouts.c.status == "running")
    done = connection.execute(sa.update(rollouts).where(mine).values(version=found.version + 1, **values))
    return done.rowcount == 1


def note(connection: sa.Connection, rollout: str, decision: Decision) -> None:
    """Write a decision into the log of decisions; the rollout itself stays as it is."""
    values = {"kind": decision.kind, "reason": decision.reason, "numbers": dict(decision.numbers)}
    connection.execute(sa.insert(decisions).values(rollout=rollout, time=decision.time, **values))
