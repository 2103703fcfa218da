"""A rollout as people are told of it: its numbers, what is still missing, and what its labels are worth."""

from __future__ import annotations

from typing import Any, NamedTuple

import sqlalchemy as sa

from torchstone.core.errors import ConfigError
from torchstone.serve.rollout import record
from torchstone.serve.rollout.controller import Counts, numbers
from torchstone.serve.rollout.plan import FEEDBACK_BIAS


def status(connection: sa.Connection) -> dict[str, Any] | None:
    """The last rollout, running or not, with every decision; None if there never was one."""
    found = record.latest(connection)
    if found is None:
        return None
    counts = Counts.of_state(found.plan, found.state)
    return {
        "status": found.status,
        "plan": found.plan.model_dump(mode="json"),
        "numbers": numbers(found.plan, counts),
        "decisions": [
            {"kind": one.kind, "reason": one.reason, "time": one.time, "numbers": dict(one.numbers)}
            for one in record.decided(connection, found.plan.id)
        ],
        "bias": FEEDBACK_BIAS,
        "controller": record.beat_of(connection),
    }


class Ended(NamedTuple):
    """A rollout that a person ended."""

    rollout: str
    candidate: str


def by_hand(connection: sa.Connection, kind: record.Status, reason: str, time: float) -> Ended | None:
    """End the running rollout because a person says so, with the numbers as they stand; None if none is running. Raises
    an ArtifactError if the candidate's directory does not hold what would be promoted.

    The controller may be writing at the same moment: then this is tried again on what it wrote.
    """
    for _ in range(20):
        try:
            found = record.running(connection)
            if found is None:
                return None
            seen = numbers(found.plan, Counts.of_state(found.plan, found.state))
        except ConfigError:  # another version's: it can be ended, if not read
            if kind != "aborted":
                raise
            made = record.Decision(kind=kind, reason=reason, numbers={}, time=time)
            return Ended(record.abandon(connection, made), "")
        if record.end(connection, found, kind, record.Decision(kind=kind, reason=reason, numbers=seen, time=time)):
            return Ended(found.plan.id, found.plan.candidate)
    raise AssertionError("the rollout changes faster than it can be ended")
