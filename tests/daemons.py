"""The servers that torchstone stands beside, as processes of the tests' own: on loopback, on free ports, in directories
that go away with them. They can be killed and started again."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SECONDS = 60.0
"""Longest wait for anything, on a machine that does much else."""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def eventually(true: Callable[[], object], seconds: float = SECONDS) -> bool:
    """Whether it became true in time."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


class Daemon:
    """One process, and what it said."""

    def __init__(self, command: list[str | Path], home: Path, user: str | None = None) -> None:
        self._command, self._home, self._user = [str(word) for word in command], home, user
        self._process: subprocess.Popen[bytes] | None = None
        self.log = home / f"{Path(self._command[0]).name}.log"

    def start(self, answers: Callable[[], object]) -> None:
        """Returns when it answers."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, user=self._user, extra_groups=[] if self._user else None, cwd=self._home,
                stdout=log, stderr=log,
            )  # fmt: skip
        assert eventually(lambda: self.ended or answers()), self.log.read_text()
        assert not self.ended, self.log.read_text()

    @property
    def ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def send(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        if number == signal.SIGKILL:
            self._process.wait(SECONDS)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """By force where it does not end by itself."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Redis(Daemon):
    """``arguments``: of its configuration, besides the place."""

    def __init__(self, home: Path, *arguments: str | Path, password: str = "") -> None:
        self.port = free_port()
        self.url = f"redis://{f':{password}@' if password else ''}127.0.0.1:{self.port}/0"
        self._password = password
        own = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", home]
        super().__init__(["redis-server", *arguments, *own, *(("--requirepass", password) if password else ())], home)

    def begin(self) -> None:
        self.start(self._answers)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(f"AUTH {self._password}\r\n".encode() if self._password else b"PING\r\n")
                return connection.recv(16).startswith((b"+PONG", b"+OK"))
        except OSError:
            return False


class Postgres(Daemon):
    def __init__(self, home: Path, programs: Path) -> None:
        self.port = free_port()
        self.url = f"postgresql://torchstone@127.0.0.1:{self.port}/postgres"
        user = unprivileged()
        if user is not None:
            shutil.chown(home, user)
        options = ("-U", "torchstone", "-A", "trust", "-N", "-E", "UTF8", "--no-locale")
        made = subprocess.run(
            [programs / "initdb", "-D", home / "data", *options],
            user=user, extra_groups=[] if user else None, cwd=home, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        place = ["-D", home / "data", "-p", str(self.port), "-h", "127.0.0.1", "-k", home, "-F"]
        super().__init__([programs / "postgres", *place], home, user)

    def begin(self) -> None:
        self.start(self._answers)

    def kill(self) -> None:
        """As a power cut does: the server and all that serve its clients, without a chance to say anything."""
        process = int((self._home / "data/postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
        self.send(signal.SIGKILL)
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)
            assert eventually(lambda child=child: not Path(f"/proc/{child}").exists())

    def _answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.url, connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True


def postgres_programs() -> Path | None:
    """Where PostgreSQL's server lies. Debian keeps it out of the PATH."""
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in places if (place / "postgres").exists()), None)


def unprivileged() -> str | None:
    """PostgreSQL refuses to run as root: the user to run it as, None for the one who runs the tests."""
    if os.geteuid() != 0:
        return None
    known = {user.pw_name for user in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody", "daemon") if name in known)


@contextlib.contextmanager
def a_postgres() -> Iterator[Postgres]:
    """One that answers; the test is skipped where there is none."""
    programs = postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    home = Path(tempfile.mkdtemp(prefix="torchstone-postgres-"))  # one that another user may reach
    home.chmod(0o755)
    made = Postgres(home, programs)
    try:
        made.begin()
        yield made
    finally:
        made.stop(signal.SIGINT)  # ends at once what is connected
        shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def a_redis(home: Path, *arguments: str | Path, password: str = "") -> Iterator[Redis]:
    """One that answers; the test is skipped where there is none."""
    if shutil.which("redis-server") is None:
        pytest.skip("Redis is not installed: apt-get install redis-server")
    pytest.importorskip("redis")
    made = Redis(home, *arguments, password=password)
    try:
        made.begin()
        yield made
    finally:
        made.stop(signal.SIGKILL)
