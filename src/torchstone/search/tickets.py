"""Who works on which trial. A study of thirty trials has thirty tickets: rows in the study's own database. A worker
takes one, gives a sign of life while it trains, and closes it when the trial is told. A ticket whose holder died is
taken over by exactly one other worker, which goes on from the trial's checkpoint.

Optuna's own heartbeats mark the trial of a dead worker as failed and then put a copy of it into the queue: whoever is
killed between the two loses it, and after the last trial has begun nobody looks any more. Here nothing is marked and
nothing copied: one UPDATE that finds the row as it was seen decides who has it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import sqlalchemy

TABLE = "torchstone_tickets"
ATTEMPTS = 5
"""Workers that may die over a trial one after the other, each soon and without finishing an epoch of it, before it is
given up as one that kills. Who takes it over goes on where it died, so what kills comes soon each time."""


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """The right to work on one trial."""

    number: int
    """From 0."""
    attempt: int
    """How often it was taken since it got further; the first time: 1."""


class Lost(Exception):  # noqa: N818 (nothing is wrong: another worker goes on with the trial)
    """The ticket was taken over by another worker, as this one gave no sign of life for too long."""


class Tickets:
    """The tickets of one study. Times are those of the database, so that the clocks of the machines do not matter."""

    def __init__(self, engine: sqlalchemy.Engine, study: str, takeover: float) -> None:
        import sqlalchemy as sql

        self._sql, self._engine, self._study = sql, engine, study
        self._takeover = takeover
        self._me = own_name()
        self._rows = sql.Table(
            TABLE,
            sql.MetaData(),
            sql.Column("study", sql.String(255), primary_key=True),
            sql.Column("ticket", sql.Integer, primary_key=True, autoincrement=False),
            sql.Column("holder", sql.String(255), nullable=False),
            sql.Column("taken", sql.Integer, nullable=False),  # counts the holders: the same one may come again
            sql.Column("attempt", sql.Integer, nullable=False),
            sql.Column("sign_of_life", sql.Double, nullable=False),
            sql.Column("closed", sql.Boolean, nullable=False),
        )
        self._now = (
            sql.text("(julianday('now') - 2440587.5) * 86400.0")
            if engine.dialect.name == "sqlite"
            else sql.text("extract(epoch from clock_timestamp())")
        )
        self._held: dict[int, int] = {}
        self._rows.create(engine, checkfirst=True)

    def take(self, trials: int) -> Ticket | None:
        """A ticket that its holder left behind, or a new one if there are fewer than ``trials`` yet; None when all are
        closed or in good hands."""
        sql, rows = self._sql, self._rows
        with self._engine.begin() as connection:
            now = float(connection.execute(sql.select(self._now)).scalar_one())
            found = connection.execute(
                sql.select(rows).where(rows.c.study == self._study).order_by(rows.c.ticket)
            ).all()
        for row in (row for row in found if not row.closed):
            abandoned = now - row.sign_of_life > self._takeover or is_dead(row.holder)
            if abandoned and self._take_over(row):
                self._held[row.ticket] = row.taken + 1
                return Ticket(number=row.ticket, attempt=row.attempt + 1)
        number = len(found)
        if number >= trials:
            return None
        first = {"holder": self._me, "taken": 1, "attempt": 1, "sign_of_life": self._now, "closed": False}
        try:
            with self._engine.begin() as connection:
                connection.execute(rows.insert().values(study=self._study, ticket=number, **first))
        except sql.exc.IntegrityError:  # another worker was quicker
            return self.take(trials)
        self._held[number] = 1
        return Ticket(number=number, attempt=1)

    def _take_over(self, row: Any) -> bool:
        seen = (self._rows.c.taken == row.taken) & (self._rows.c.sign_of_life == row.sign_of_life)
        change = {
            "holder": self._me,
            "taken": row.taken + 1,
            "attempt": row.attempt + 1,
            "sign_of_life": self._now,
        }
        return self._change(row.ticket, ~self._rows.c.closed & seen, change)

    def is_mine(self, ticket: Ticket) -> bool:
        """Give a sign of life; False when the ticket was taken over."""
        return self._update(ticket, sign_of_life=self._now)

    def got_further(self, ticket: Ticket) -> bool:
        """An epoch was finished, or it has been trained for long: whoever takes it over begins to count attempts anew.
        False when that has happened."""
        return self._update(ticket, attempt=1, sign_of_life=self._now)

    def close(self, ticket: Ticket) -> bool:
        """The trial is told: nobody has to work on it any more. False when another worker has it."""
        return self._update(ticket, closed=True)

    def give_back(self, ticket: Ticket) -> None:
        """Let the next one who asks take it, at once."""
        self._update(ticket, sign_of_life=0.0, attempt=ticket.attempt - 1)

    def held_by_others(self) -> int:
        """How many tickets are neither closed nor free."""
        sql, rows = self._sql, self._rows
        count = sql.select(sql.func.count()).where(rows.c.study == self._study, ~rows.c.closed)
        with self._engine.begin() as connection:
            return int(connection.execute(count).scalar_one())

    @contextlib.contextmanager
    def alive(self, ticket: Ticket) -> Iterator[threading.Event]:
        """Give signs of life from a thread while the block runs. The event is set when the ticket was lost."""
        stop, lost = threading.Event(), threading.Event()

        def beat() -> None:
            began = time.monotonic()
            while not stop.wait(self._takeover / 6):
                long = time.monotonic() - began > self._takeover
                # A database that cannot be reached for a moment is no reason to give up: the next beat tries again.
                with contextlib.suppress(self._sql.exc.SQLAlchemyError):
                    if not (self.got_further(ticket) if long else self.is_mine(ticket)):
                        lost.set()
                        return

        thread = threading.Thread(target=beat, name="signs of life", daemon=True)
        thread.start()
        try:
            yield lost
        finally:
            stop.set()
            thread.join()

    def _update(self, ticket: Ticket, **values: Any) -> bool:
        mine = (self._rows.c.holder == self._me) & (self._rows.c.taken == self._held.get(ticket.number, 0))
        return self._change(ticket.number, mine & ~self._rows.c.closed, values)

    def _change(self, number: int, condition: Any, values: dict[str, Any]) -> bool:
        """Change one row if ``condition`` holds; whether it did."""
        rows = self._rows
        update = rows.update().where(rows.c.study == self._study, rows.c.ticket == number, condition).values(**values)
        with self._engine.begin() as connection:
            return connection.execute(update).rowcount == 1


@cache
def own_name() -> str:
    """This process, as no other one on any machine is called: the host with its boot, its processes' namespace, the
    number of the process and when it began."""
    return f"{_here()}/{os.getpid()}/{_began(os.getpid())}"


def host(name: str) -> str:
    """The machine of a process's name, and its number, as a person would say it."""
    parts = name.split("/")
    return f"{parts[0]}:{parts[-2]}" if len(parts) > 2 else name


def is_dead(name: str) -> bool:
    """Whether that process certainly is no more: it ran here, under a number that is free or another's now."""
    where, number, began = name.rsplit("/", 2)
    return where == _here() and "" not in (where.rsplit("/", 1)[-1], began) and _began(int(number)) != began


@cache
def _here() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
        namespace = Path("/proc/self/ns/pid").readlink().name
    except OSError:  # no Linux: nobody is known to be dead, only silent
        return f"{socket.gethostname()}/"
    return f"{socket.gethostname()}/{boot}{namespace}"


def _began(number: int) -> str:
    """When a process of this machine began, in ticks since the boot; empty where there is none."""
    try:
        text = Path(f"/proc/{number}/stat").read_text()
    except OSError:
        return ""
    state, *rest = text.rpartition(")")[2].split()
    return "" if state in ("Z", "X") else rest[18]  # a zombie trains nothing
