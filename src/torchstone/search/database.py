"""Where studies are kept: a SQLite file or a PostgreSQL server, by its address."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchstone.core import databases, files
from torchstone.core.errors import StorageError

if TYPE_CHECKING:
    import optuna
    from sqlalchemy import URL


WHAT = "a study"


def sqlite(path: Path) -> str:
    """The address of a database in a file."""
    return databases.sqlite(path)


def shown(url: str) -> str:
    """The address without its password."""
    return databases.shown(_parsed(url))


def check_url(url: str) -> None:
    """Raise the ConfigError of an address that no study can be kept at."""
    _parsed(url)


def _parsed(url: str) -> URL:
    return databases.parsed(url, WHAT)


def storage(url: str, takeover: float) -> optuna.storages.RDBStorage:
    """The database's tables for studies, made where they are missing."""
    import optuna
    from sqlalchemy import exc

    parsed = _parsed(url)
    options: dict[str, Any] = {"pool_pre_ping": True}
    if parsed.get_backend_name() == "sqlite":
        options["connect_args"] = {"timeout": 60}  # seconds that a writer waits for the others
        files.make_directory(Path(str(parsed.database)).parent)
    elif "options" not in parsed.query:
        # A machine that loses its power in the middle of a change would hold the row until the server misses it.
        options["connect_args"] = {"options": f"-c idle_in_transaction_session_timeout={1000 * takeover:.0f}"}
    for tries in range(5, -1, -1):
        try:
            return optuna.storages.RDBStorage(parsed.render_as_string(hide_password=False), engine_kwargs=options)
        except exc.SQLAlchemyError as error:
            if not tries or not _made_meanwhile(error):
                shown, reason = databases.shown(parsed), str(getattr(error, "orig", error))
                raise StorageError(
                    f"the database '{shown}' cannot be used: {reason.strip().splitlines()[0]}",
                    hint="does its server run, and may this user create tables in it?",
                ) from None
            time.sleep(random.random())
    raise AssertionError


def _made_meanwhile(error: Exception) -> bool:
    """Whether the tables could not be made because another worker was making them."""
    return any(word in str(error) for word in ("already exists", "duplicate key", "UNIQUE constraint"))


@contextlib.contextmanager
def lost_connection_explained() -> Iterator[None]:
    """A database that goes away while trials run is a StorageError."""
    import optuna
    from sqlalchemy import exc

    try:
        yield
    except (optuna.exceptions.StorageInternalError, exc.DBAPIError) as error:
        cause = error.__cause__ if isinstance(error, optuna.exceptions.StorageInternalError) else error
        reason = str(getattr(cause, "orig", cause)).strip().splitlines()
        raise StorageError(
            f"the study's database cannot be reached any more: {reason[0] if reason else 'no reason given'}",
            hint="type the same command again when it is back: the trials go on where they stopped",
        ) from None
