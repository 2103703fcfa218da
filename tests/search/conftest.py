"""Databases for studies: a file, and a PostgreSQL server of this test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from daemons import a_postgres

pytest.importorskip("optuna", reason="the extra 'search' is not installed")


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The address of a server."""
    with a_postgres() as server:
        yield server.url


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a database of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'study.db'}"
    return request.getfixturevalue("postgres")
