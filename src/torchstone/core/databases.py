"""Addresses of databases: SQLite by default, PostgreSQL by URL."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torchstone.core.errors import ConfigError

if TYPE_CHECKING:
    from sqlalchemy import URL


def sqlite(path: Path) -> str:
    """The address of a database in a file."""
    return f"sqlite:///{path.resolve()}"


def parsed(url: str, what: str) -> URL:
    """The address of ``what`` ('a study') with the driver that is installed; a ConfigError where nothing is kept."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        found = make_url(url)
    except (ArgumentError, ValueError):  # a ValueError: of its port
        given = f"'{url}'" if url.isalnum() else f"what is given for {what}"  # more than a word may hold a password
        raise ConfigError(
            f"{given} is no address of a database", hint="postgresql://USER@HOST/DATABASE, or sqlite:///FILE"
        ) from None
    kind = found.get_backend_name()
    if kind in ("postgres", "postgresql"):
        return found.set(drivername="postgresql+psycopg")
    if kind != "sqlite":
        raise ConfigError(f"{what} is kept in PostgreSQL or SQLite, not in '{kind}'")
    if not found.database or found.database == ":memory:":
        raise ConfigError(f"{what} in memory would be lost", hint="sqlite:///FILE")
    return found


def shown(url: URL) -> str:
    """The address without what may be secret in it: the password, and what stands behind a question mark."""
    return url.set(query={}).render_as_string(hide_password=True)
