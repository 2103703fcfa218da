"""The prediction log's writer: a thread that puts rows into the store, and loses them rather than hold up an answer."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError, StatementError

from torchstone.core import console
from torchstone.serve.store import tables
from torchstone.serve.values import Role

LIMIT = 50_000
"""Rows that wait in memory, about 25 MB: at 2,000 answers a second, a database that is away for 25 s loses nothing."""
BATCH = 1_000
"""Rows of one transaction."""
PAUSE = 0.2
"""Seconds in which rows gather. A log that is this late hurts nobody, and a transaction a row would."""
RETRY = (0.2, 5.0)
"""Seconds from a failed write to the next, at first and at most."""
SWEEP = 600.0
"""Seconds from one look for old rows to the next."""
SWEPT = 5_000
"""Old rows that are removed in one transaction, between which new ones are written. With ``PAUSE`` that is up to 25,000
a second, more than a worker answers."""

Row = dict[str, Any]


class Writer:
    """A bounded buffer and the thread that empties it (``values.Log``). Threads may share one.

    Rows are lost where the buffer is full, where the database refuses them, and where it is still away at the end; each
    is counted in ``lost``. A row that is written twice because the answer to the first write did not come back is in
    the store once.
    """

    def __init__(self, url: str, *, limit: int = LIMIT, keep_days: float | None = 30.0) -> None:
        self._engine = tables.engine(url)
        self._rows: deque[tuple[str, Row]] = deque()
        self._limit = limit
        self._keep = keep_days
        self._wake, self._stop = threading.Event(), threading.Event()
        self._count = threading.Lock()
        self._sweep_at = time.monotonic() + SWEEP
        self._made = self._away = False
        self.written = 0
        self.lost = 0
        self.failures = 0
        """Writes that failed and were tried again."""
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Rows in memory."""
        return len(self._rows)

    def predicted(
        self,
        *,
        id: str,
        time: float,
        bundle: str,
        role: Role,
        key: str | None,
        image: str,
        label: int,
        confidence: float,
        milliseconds: float,
        error: str | None,
    ) -> None:
        """Note an answer of a model; of ``key`` only a digest is kept. Neither blocks nor raises."""
        self._put(
            "predictions",
            {
                "id": id, "role": role, "time": time, "bundle": bundle, "key": key, "image": image, "label": label,
                "confidence": confidence, "milliseconds": milliseconds, "error": error,
            },
        )  # fmt: skip

    def feedback(self, *, id: str, label: int, time: float) -> None:
        """Note the true class of an answered image. Neither blocks nor raises."""
        self._put("feedback", {"id": id, "label": label, "time": time})

    def close(self, patience: float = 5.0) -> None:
        """Write what waits, for at most ``patience`` seconds, and count the rest as lost."""
        self._stop.set()
        self._wake.set()
        self._thread.join(patience)
        self._lose(len(self._rows))
        self._rows.clear()
        self._engine.dispose()

    def _put(self, table: str, row: Row) -> None:
        if len(self._rows) >= self._limit or self._stop.is_set():
            self._lose(1)
            return
        self._rows.append((table, row))

    def _lose(self, rows: int) -> None:
        with self._count:
            self.lost += rows

    def _run(self) -> None:
        pause = RETRY[0]
        while True:
            stopping = self._wake.wait(PAUSE)
            while self._rows:
                if self._write(self._take()):
                    pause = RETRY[0]
                    continue
                if self._stop.wait(pause) and pause >= RETRY[1]:
                    break
                pause = min(2 * pause, RETRY[1])
            if stopping:
                return
            if time.monotonic() >= self._sweep_at and not self.sweep():
                self._sweep_at = time.monotonic() + SWEEP

    def _take(self) -> list[tuple[str, Row]]:
        """The oldest rows, which stay in the buffer until they are written."""
        return [self._rows[place] for place in range(min(BATCH, len(self._rows)))]

    def _write(self, rows: Sequence[tuple[str, Row]]) -> bool:
        """Whether the rows are out of the buffer now: written, or refused for good."""
        try:
            self._insert(rows)
        except Exception as error:
            if _of_the_database(error):
                self._wait(error)
                return False
            if len(rows) > 1:  # one of the rows is none that the database takes: find it
                return all(self._write(rows[half]) for half in (slice(len(rows) // 2), slice(len(rows) // 2, None)))
            self._lose(1)
        else:
            self.written += len(rows)
            if self._away:
                console.say(f"{tables.WHAT} is back; {self.lost:,} log rows were lost so far")
            self._away = False
        for _ in rows:
            self._rows.popleft()
        return True

    def _wait(self, error: Exception) -> None:
        """Note that the database did not take what it should."""
        self.failures += 1
        if not self._away:
            console.say(f"{tables.unreachable(self._engine, error).message}; answers go on, log rows wait")
        self._away = True

    def _insert(self, rows: Sequence[tuple[str, Row]]) -> None:
        if not self._made:
            tables.metadata.create_all(self._engine)
            self._made = True
        now = time.time()
        with self._engine.begin() as connection:
            for name in ("predictions", "feedback"):
                prepare: Callable[[Row], Row] = _hidden if name == "predictions" else dict
                values = [prepare(row) | {"written": now} for table, row in rows if table == name]
                if values:
                    connection.execute(self._insertion(tables.metadata.tables[name]), values)

    def _insertion(self, table: sa.Table) -> Any:
        dialect: Any = postgresql if self._engine.dialect.name == "postgresql" else sqlite
        return dialect.insert(table).on_conflict_do_nothing()

    def sweep(self) -> bool:
        """Remove ``SWEPT`` of the rows that are older than what is kept, of each table; whether there may be more."""
        if self._keep is None:
            return False
        before = time.time() - 86_400 * self._keep
        more = False
        try:
            with self._engine.begin() as connection:
                for table in (tables.predictions, tables.feedback):
                    old = sa.select(table.c.seq).where(table.c.written < before).order_by(table.c.written).limit(SWEPT)
                    more |= connection.execute(sa.delete(table).where(table.c.seq.in_(old))).rowcount >= SWEPT
        except SQLAlchemyError:
            self.failures += 1
            return False
        return more


def _of_the_database(error: Exception) -> bool:
    """Whether trying again can help: it is gone, busy or full. What a row itself is wrong with stays wrong."""
    of_a_row = isinstance(error, DataError | IntegrityError)
    of_a_value = isinstance(error, StatementError) and not isinstance(error, DBAPIError)
    return isinstance(error, SQLAlchemyError) and not of_a_row and not of_a_value


def _hidden(row: Row) -> Row:
    """The row with a digest in the place of the key."""
    if row["key"] is None:
        return row
    return row | {"key": hashlib.sha256(row["key"].encode()).hexdigest()[:16]}
