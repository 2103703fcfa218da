"""Databases for studies: a file, and a PostgreSQL server of this test's own."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("optuna", reason="the extra 'search' is not installed")


def programs() -> Path | None:
    """Where PostgreSQL's server lies. Debian keeps it out of the PATH."""
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in places if (place / "postgres").exists()), None)


def unprivileged() -> str | None:
    """The server refuses to run as root: the user to run it as, None for the one who runs the tests."""
    if os.geteuid() != 0:
        return None
    known = {user.pw_name for user in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody", "daemon") if name in known)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The address of a server on a free port, in a directory that goes away with it."""
    place = programs()
    if place is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    directory = Path(tempfile.mkdtemp(prefix="torchstone-postgres-"))
    user = unprivileged()
    if user is not None:
        shutil.chown(directory, user)
    data = directory / "data"
    made = subprocess.run(
        [place / "initdb", "-D", data, "-U", "torchstone", "-A", "trust", "-N", "-E", "UTF8", "--no-locale"],
        user=user, extra_groups=[] if user else None, cwd=directory, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (directory / "log").open("w+")
    server = subprocess.Popen(
        [place / "postgres", "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", directory, "-F"],
        user=user, extra_groups=[] if user else None, cwd=directory, stdout=log, stderr=log,
    )  # fmt: skip
    try:
        wait_for(server, port, directory / "log")
        yield f"postgresql://torchstone@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(signal.SIGINT)  # ends at once what is connected
        server.wait(timeout=60)
        log.close()
        shutil.rmtree(directory)


def wait_for(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    import psycopg

    for _ in range(600):
        try:
            psycopg.connect(f"postgresql://torchstone@127.0.0.1:{port}/postgres", connect_timeout=5).close()
            return
        except psycopg.OperationalError:
            assert server.poll() is None, log.read_text()
            time.sleep(0.1)
    raise AssertionError(log.read_text())


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a database of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'study.db'}"
    return request.getfixturevalue("postgres")
