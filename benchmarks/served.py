"""A server with its cache and its database, as measurements start them, kill them and look at them."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SECONDS = 120.0
"""Longest wait for anything."""
SAMPLE = 0.5
"""Seconds from one look at the memory to the next."""


@dataclass
class Server:
    """A running ``torchstone serve``."""

    process: subprocess.Popen[str]
    began: float
    """When it was started, in seconds of the monotonic clock."""
    lines: list[str] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def workers(self) -> list[int]:
        """Process ids."""
        pid = self.process.pid
        return [int(number) for number in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def counted(self, name: str) -> float:
        """The sum of one family of ``/metrics``."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)) as connection:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        return sum(float(line.split()[-1]) for line in text.splitlines() if re.match(rf"{name}[{{ ]", line))

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send the signal, wait, and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(SECONDS)


@contextlib.contextmanager
def serving(*arguments: str | Path, cores: Sequence[int] = ()) -> Iterator[Server]:
    """``torchstone serve ARGUMENTS`` on a free port (and on these cores), from its first answer to the end of the
    block."""
    pinned = ["taskset", "--cpu-list", ",".join(map(str, cores))] if cores else []
    command = [*pinned, sys.executable, "-m", "torchstone", "serve", *map(str, arguments), "--port", "0"]
    began = time.monotonic()
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    server = Server(process, began)
    reader = threading.Thread(target=_read, args=(server,), daemon=True)
    reader.start()
    try:
        wait_for(lambda: server.port or process.poll() is not None, "the server")
        if not server.port:
            raise SystemExit("error: the server did not start\n" + "".join(server.lines))
        yield server
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        reader.join(SECONDS)
        if process.stderr is not None:
            process.stderr.close()


def _read(server: Server) -> None:
    assert server.process.stderr is not None
    for line in server.process.stderr:
        server.lines.append(line)
        if found := re.search(r"serving on http://[\d.]+:(\d+)", line):
            server.port = int(found[1])


def memory(pids: Sequence[int], what: str = "VmRSS") -> list[float]:
    """10⁶ bytes of each process, as Linux counts them; what has ended is left out."""
    found = []
    for pid in pids:
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{pid}/status").read_text()
            found += [int(kilobytes) * 1024 / 1e6 for kilobytes in re.findall(rf"{what}:\s+(\d+) kB", status)]
    return found


def has_torch(pid: int) -> bool:
    """Whether PyTorch's libraries are mapped into a process, which importing it does."""
    return bool(re.search(r"/torch/lib/|libtorch", Path(f"/proc/{pid}/maps").read_text()))


@dataclass
class Watch:
    """Is told the time now and then (``serve.load.run``): notes the workers' memory, and does what is due."""

    server: Server
    plan: Mapping[float, Callable[[], None]] = field(default_factory=dict)
    """Seconds from the beginning: what is done then, in a thread of its own."""
    samples: list[tuple[float, list[float]]] = field(default_factory=list)
    done: dict[float, float] = field(default_factory=dict)
    """When what was planned was over."""
    _threads: list[threading.Thread] = field(default_factory=list)

    def __call__(self, now: float) -> None:
        if not self.samples or now - self.samples[-1][0] >= SAMPLE:
            with contextlib.suppress(OSError):
                self.samples.append((now, memory(self.server.workers)))
        for moment in [one for one in sorted(self.plan)[len(self._threads) :] if one <= now]:
            thread = threading.Thread(target=self._do, args=(moment, now))
            self._threads.append(thread)
            thread.start()

    def _do(self, moment: float, now: float) -> None:
        began = time.monotonic()
        self.plan[moment]()
        self.done[moment] = now + time.monotonic() - began

    def end(self) -> None:
        for thread in self._threads:
            thread.join(SECONDS)


class Redis:
    """A Redis server of our own, which can be killed and started again."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._port = free_port()
        self.url = f"redis://127.0.0.1:{self._port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = {"--port": str(self._port), "--bind": "127.0.0.1", "--save": "", "--dir": str(self._home)}
        flat = [text for pair in options.items() for text in pair]
        self._process = subprocess.Popen(["redis-server", *flat], stdout=subprocess.DEVNULL)
        wait_for(self._answers, "Redis")

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False


class Postgres:
    """A PostgreSQL server of our own, which can be killed and started again."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._port = free_port()
        self.url = f"postgresql://log@127.0.0.1:{self._port}/postgres"
        self._run("initdb", "-D", str(home / "data"), "-U", "log", "-A", "trust", "--no-sync")

    def start(self) -> None:
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self._home}"
        place = str(self._home / "data")
        command = ("pg_ctl", "-D", place, "-w", "-l", str(self._home / "log"), "-o", options, "start")
        for _ in range(20):  # as long as processes of a killed one are there, it does not
            with contextlib.suppress(subprocess.CalledProcessError):
                return self._run(*command)
            time.sleep(0.5)
        return self._run(*command)

    def kill(self) -> None:
        """As a power cut does: by its process id, without a chance to say anything."""
        process = int((self._home / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(process, signal.SIGKILL)
        wait_for(lambda: not Path(f"/proc/{process}").exists(), "the end of PostgreSQL")

    def stop(self) -> None:
        if (self._home / "data" / "postmaster.pid").exists():
            self._run("pg_ctl", "-D", str(self._home / "data"), "-m", "immediate", "stop", check=False)

    def _run(self, *command: str, check: bool = True) -> None:
        """As another user where we are root, which PostgreSQL refuses to be."""
        if os.getuid() == 0:
            shutil.chown(self._home, "nobody")
            command = ("setpriv", "--reuid=nobody", "--clear-groups", *command)
        subprocess.run(command, cwd=self._home, check=check, stdout=subprocess.DEVNULL, timeout=SECONDS)


@contextlib.contextmanager
def stores() -> Iterator[tuple[Redis, Postgres]]:
    """Debian's servers of both, running, with nothing in them."""
    path = os.environ["PATH"]
    os.environ["PATH"] = os.pathsep.join([path, *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin")))])
    lacking = [name for name in ("redis-server", "initdb", "pg_ctl") if shutil.which(name) is None]
    if lacking:
        raise SystemExit(f"error: {', '.join(lacking)} cannot be found\nhint: apt-get install redis-server postgresql")
    home = Path(tempfile.mkdtemp(prefix="torchstone-stores-", dir="/tmp"))  # which 'nobody' may reach
    home.chmod(0o755)
    redis = postgres = None
    try:
        for name in ("redis", "postgres"):
            (home / name).mkdir()
        redis, postgres = Redis(home / "redis"), Postgres(home / "postgres")
        redis.start()
        postgres.start()
        yield redis, postgres
    finally:
        os.environ["PATH"] = path
        if redis is not None:
            with contextlib.suppress(AssertionError):
                redis.kill()
        if postgres is not None:
            postgres.stop()
        shutil.rmtree(home, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"error: waited {SECONDS:.0f} s for {what}")
        time.sleep(0.005)
