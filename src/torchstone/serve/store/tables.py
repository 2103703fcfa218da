"""The tables of the store, and how its database is opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from torchstone.core import databases, files
from torchstone.core.errors import StorageError

WHAT = "the server's store"
FILE = "serve.db"
"""Of the SQLite database, in the state directory."""

metadata = sa.MetaData()
_Number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
"""SQLite counts rows by itself in a column of the type INTEGER alone."""

predictions = sa.Table(
    "predictions",
    metadata,
    sa.Column("seq", _Number, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(64), nullable=False),
    sa.Column("role", sa.String(8), nullable=False),
    sa.Column("time", sa.Double, nullable=False),
    sa.Column("written", sa.Double, nullable=False),
    sa.Column("bundle", sa.String(12), nullable=False),
    sa.Column("key", sa.String(16)),
    sa.Column("image", sa.String(64), nullable=False),
    sa.Column("label", sa.Integer, nullable=False),
    sa.Column("confidence", sa.Double, nullable=False),
    sa.Column("milliseconds", sa.Double, nullable=False),
    sa.Column("error", sa.Text),
    sa.UniqueConstraint("id", "role", name="predictions_once"),
    sa.Index("predictions_written", "written"),
    sqlite_autoincrement=True,
)
"""A row for each answer of a model. ``key`` is a digest: whose request it was is nobody's business here. ``label`` is
-1 and ``confidence`` 0 where the model gave an error; ``milliseconds`` is 0 for an answer from the cache, which says
nothing of the model's speed (a candidate's cache begins empty)."""

feedback = sa.Table(
    "feedback",
    metadata,
    sa.Column("seq", _Number, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(64), nullable=False, unique=True),
    sa.Column("label", sa.Integer, nullable=False),
    sa.Column("time", sa.Double, nullable=False),
    sa.Column("written", sa.Double, nullable=False),
    sa.Index("feedback_written", "written"),
    sqlite_autoincrement=True,
)
"""The true class of an answered image. The first label of an image stays: what was once bet on is not taken back."""

rollouts = sa.Table(
    "rollouts",
    metadata,
    sa.Column("id", sa.String(16), primary_key=True),
    sa.Column("started", sa.Double, nullable=False),
    sa.Column("status", sa.String(12), nullable=False),
    sa.Column("plan", sa.JSON, nullable=False),
    sa.Column("state", sa.JSON, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
)
"""``version`` counts the changes of a row: who read an older one may not write."""

running_once = sa.Index(
    "rollouts_one_running",
    rollouts.c.status,
    unique=True,
    sqlite_where=rollouts.c.status == "running",
    postgresql_where=rollouts.c.status == "running",
)
"""There is at most one rollout at a time, whoever starts them."""

decisions = sa.Table(
    "decisions",
    metadata,
    sa.Column("seq", _Number, primary_key=True, autoincrement=True),
    sa.Column("rollout", sa.String(16), nullable=False, index=True),
    sa.Column("time", sa.Double, nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("numbers", sa.JSON, nullable=False),
    sqlite_autoincrement=True,
)

serving = sa.Table(
    "serving",
    metadata,
    sa.Column("model", sa.String(255), primary_key=True),
    sa.Column("given", sa.Text, nullable=False),
    sa.Column("bundle", sa.Text, nullable=False),
    sa.Column("artifact", sa.String(64), nullable=False),
    sa.Column("time", sa.Double, nullable=False),
)
"""Of each model that the server answers with: the bundle it was started with, and the one that is stable now."""

heartbeats = sa.Table(
    "heartbeats",
    metadata,
    sa.Column("name", sa.String(16), primary_key=True),
    sa.Column("time", sa.Double, nullable=False),
)
"""When those that must not stop unseen last gave a sign of life: the controller of rollouts."""


def url_of(state: Path, store: str | None) -> str:
    """The database's address: ``store``, or a file in the state directory."""
    return store if store is not None else databases.sqlite(state / FILE)


def engine(url: str) -> sa.Engine:
    """An engine for ``url``, which connects when it is used first.

    A server that has gone is noticed within seconds: whoever waits for the store must be able to give up.
    """
    parsed = databases.parsed(url, WHAT)
    if parsed.get_backend_name() == "sqlite":
        files.make_directory(Path(str(parsed.database)).parent)
        made = sa.create_engine(parsed, connect_args={"timeout": 10})
        event.listen(made, "connect", _prepare_sqlite)
        return made
    arguments: dict[str, Any] = {"connect_timeout": 3, "tcp_user_timeout": 5_000}
    if "options" not in parsed.query:
        arguments["options"] = "-c statement_timeout=20s -c idle_in_transaction_session_timeout=20s"
    return sa.create_engine(parsed, pool_pre_ping=True, pool_size=2, connect_args=arguments)


def _prepare_sqlite(connection: Any, _: Any) -> None:
    """Readers do not wait for the writer; a power cut may lose the last rows, never the file."""
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def create(made: sa.Engine) -> None:
    """Make the tables that are missing; a StorageError where the database cannot be reached or written."""
    for last in (False, True):
        try:
            metadata.create_all(made)
            return
        except SQLAlchemyError as error:  # another process may be making them: the second try sees them
            if last:
                raise unreachable(made, error) from None


def unreachable(made: sa.Engine, error: Exception) -> StorageError:
    """What a person is told of an error of the database."""
    where = databases.shown(made.url)
    reason = str(getattr(error, "orig", error)).strip().splitlines()
    return StorageError(
        f"{WHAT} '{where}' cannot be used: {reason[0] if reason else 'no reason'}",
        hint="does its server run, and may this user create tables in it? --state or --store name another place",
    )
