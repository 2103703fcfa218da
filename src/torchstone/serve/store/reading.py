"""What is read of the log: answers in the order they were written, and labels joined to the answers they belong to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import sqlalchemy as sa

from torchstone.serve.store.tables import feedback, predictions

SETTLED = 3.0
"""Seconds after which a row is read for good. Rows get their number when they are written and are seen when that is
committed, so for a moment a later one can be seen first."""
CHUNK = 10_000
"""Rows that are read at once."""


class Seen(NamedTuple):
    """An answer of one model; ``other`` tells of the other model's to the same image, where it was asked for."""

    seq: int
    role: str
    label: int
    milliseconds: float
    failed: bool
    paired: bool
    other_label: int
    other_milliseconds: float
    other_failed: bool


class Labelled(NamedTuple):
    """A true label, and who had answered its image how; the label of a model that was not asked is None."""

    seq: int
    label: int
    stable: int | None
    stable_failed: bool
    candidate: int | None
    candidate_failed: bool


def settled(connection: sa.Connection, table: sa.Table, after: int, now: float) -> int:
    """The number of the last row that may be read now; ``after`` if there is none beyond it."""
    last = sa.select(sa.func.max(table.c.seq)).where(table.c.seq > after, table.c.written <= now - SETTLED)
    return connection.scalar(last) or after


def end(connection: sa.Connection, table: sa.Table) -> int:
    """The number of the last row there is; 0 if there is none."""
    return connection.scalar(sa.select(sa.func.max(table.c.seq))) or 0


def answers(
    connection: sa.Connection, span: tuple[int, int], who: Iterable[tuple[str, str]], other: tuple[str, str]
) -> list[Seen]:
    """At most ``CHUNK`` answers whose numbers lie above ``span[0]`` up to ``span[1]``, the oldest first, of models
    given by role and bundle; each with the answer of ``other``, given so as well, to the same image."""
    one, two = predictions.alias("one"), predictions.alias("two")
    beside = (two.c.id == one.c.id) & (two.c.role == other[0]) & (two.c.bundle == other[1])
    query = (
        sa.select(
            one.c.seq, one.c.role, one.c.label, one.c.milliseconds, one.c.error.is_not(None), two.c.seq.is_not(None),
            sa.func.coalesce(two.c.label, -1), sa.func.coalesce(two.c.milliseconds, 0.0), two.c.error.is_not(None),
        )
        .select_from(one.outerjoin(two, beside))
        .where(
            one.c.seq > span[0],
            one.c.seq <= span[1],
            sa.or_(*((one.c.role == role) & (one.c.bundle == bundle) for role, bundle in who)),
        )
        .order_by(one.c.seq)
        .limit(CHUNK)
    )  # fmt: skip
    return [Seen(*row) for row in connection.execute(query)]


def labelled(
    connection: sa.Connection, span: tuple[int, int], stable: str, candidate: tuple[str, str], since: int
) -> list[Labelled]:
    """At most ``CHUNK`` labels whose numbers lie above ``span[0]`` up to ``span[1]``, the oldest first, with the
    answers written after number ``since`` of the stable bundle and of the candidate's role and bundle."""
    one, two = predictions.alias("one"), predictions.alias("two")
    role, bundle = candidate
    of_stable = (one.c.id == feedback.c.id) & (one.c.role == "stable") & (one.c.bundle == stable) & (one.c.seq > since)
    of_candidate = (two.c.id == feedback.c.id) & (two.c.role == role) & (two.c.bundle == bundle) & (two.c.seq > since)
    query = (
        sa.select(
            feedback.c.seq, feedback.c.label,
            one.c.label, one.c.error.is_not(None), two.c.label, two.c.error.is_not(None),
        )
        .select_from(feedback.outerjoin(one, of_stable).outerjoin(two, of_candidate))
        .where(feedback.c.seq > span[0], feedback.c.seq <= span[1])
        .order_by(feedback.c.seq)
        .limit(CHUNK)
    )  # fmt: skip
    return [Labelled(*row) for row in connection.execute(query)]


def last_times(connection: sa.Connection, bundle: str, span: tuple[int, int], most: int) -> list[float]:
    """Milliseconds of the stable model's last answers whose numbers lie above ``span[0]`` up to ``span[1]``;
    those from the cache took none, and do not count."""
    query = (
        sa.select(predictions.c.milliseconds)
        .where(
            predictions.c.seq > span[0],
            predictions.c.seq <= span[1],
            predictions.c.role == "stable",
            predictions.c.bundle == bundle,
            predictions.c.error.is_(None),
            predictions.c.milliseconds > 0,
        )
        .order_by(predictions.c.seq.desc())
        .limit(most)
    )
    return list(connection.scalars(query))
