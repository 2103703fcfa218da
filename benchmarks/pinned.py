"""A server on one core, and wrk on another: start it, ask it, load it, end it with all that it has started."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE = 180
"""Seconds for a server's first answer: some import for long, on a core that they share with their own processes."""
ENDING = 20
"""Seconds for a server to end by itself when it is told to."""
SCRIPT = Path(__file__).with_name("post.lua")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is posted: bodies in turn, of one type, to one path."""

    path: str
    kind: str
    bodies: tuple[bytes, ...]
    folder: Path
    """Of the same bodies as files that are called by their numbers, for wrk."""

    @classmethod
    def of(cls, path: str, images: Sequence[bytes], folder: Path, field: str | None = None) -> Request:
        """The images as they are, or each as the one file of a form's ``field``."""
        boundary = "a-boundary-that-no-picture-holds"
        before = f'--{boundary}\r\ncontent-disposition: form-data; name="{field}"; filename="image.jpg"\r\n'
        before += "content-type: image/jpeg\r\n\r\n"
        after = f"\r\n--{boundary}--\r\n"
        bodies = tuple(before.encode() + image + after.encode() if field else image for image in images)
        folder.mkdir(parents=True, exist_ok=True)
        for number, body in enumerate(bodies):
            (folder / str(number)).write_bytes(body)
        kind = f"multipart/form-data; boundary={boundary}" if field else "image/jpeg"
        return cls(path=path, kind=kind, bodies=bodies, folder=folder)


@dataclass(frozen=True, kw_only=True)
class Load:
    """What wrk found."""

    rate: float
    """Requests a second."""
    p50: float
    """Milliseconds."""
    p99: float
    errors: dict[str, int]
    """Kind: how many; ``status`` are answers of 400 and above."""

    @property
    def clean(self) -> bool:
        return not any(self.errors.values()) and self.rate > 0


class RefusedError(RuntimeError):
    """An answer that is no 200."""

    def __init__(self, status: int, content: bytes) -> None:
        super().__init__(f"{status}: {content[:300]!r}")
        self.final = 400 <= status < 500 and status not in (404, 429)
        """The same request will be refused again, however long one waits for the server."""


@dataclass(frozen=True, kw_only=True)
class Server:
    """One that has answered."""

    process: subprocess.Popen[bytes]
    port: int
    seconds: float
    """From its start to its first answer."""

    def ask(self, request: Request, number: int) -> Any:
        """The parsed answer to that body; a RefusedError for anything but a 200."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            connection.request("POST", request.path, request.bodies[number], {"content-type": request.kind})
            reply = connection.getresponse()
            content = reply.read()
        if reply.status != 200:
            raise RefusedError(reply.status, content)
        return json.loads(content)

    def megabytes(self) -> float:
        """Of all its processes, what they share counted once: their proportional set sizes."""
        found = 0
        for process in members(self.process.pid):
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
                    found += 1024 * int(line.split()[1]) if line.startswith("Pss:") else 0
        return found / 1e6


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def pinned(core: int, command: Sequence[str]) -> list[str]:
    """The command, with all that it starts, on this core alone."""
    return ["taskset", "--cpu-list", str(core), *command]


@contextlib.contextmanager
def started(
    command: Sequence[str], port: int, request: Request, *, core: int, log: Path, place: Path, env: Mapping[str, str]
) -> Iterator[Server]:
    """The command as a server on ``core``, from its first answer to the end of the block. It runs in a session of its
    own, of which nothing is left afterwards."""
    begin = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(
            pinned(core, command), cwd=place, env={**os.environ, **env}, stdin=subprocess.DEVNULL, stdout=output,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            server = Server(process=process, port=port, seconds=0.0)
            _await_answer(server, request, log)
            yield Server(process=process, port=port, seconds=time.perf_counter() - begin)
        finally:
            ended(process)


def _await_answer(server: Server, request: Request, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            server.ask(request, 0)
            return
        except (OSError, http.client.HTTPException, RefusedError) as error:
            final = isinstance(error, RefusedError) and error.final
            if final or server.process.poll() is not None or time.monotonic() > deadline:
                said = log.read_text(errors="replace")[-3000:]
                raise RuntimeError(f"no answer ({error}); the server said:\n{said}") from None
        time.sleep(0.05)


def ended(process: subprocess.Popen[bytes]) -> None:
    """End the server's process group, and then what is left of all that it has started: some give their workers a
    session of their own."""
    family = members(process.pid)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(ENDING)
    for left, birth in family.items():
        if birth and stat(left)[1] == birth:
            with contextlib.suppress(ProcessLookupError):
                os.kill(left, signal.SIGKILL)
    process.wait()


def members(root: int) -> dict[int, int]:
    """A process, its children, theirs, and so on: when each began, in ticks."""
    known = {int(path.name): stat(int(path.name)) for path in Path("/proc").glob("[0-9]*")}
    found, grown = {root: known.get(root, (0, 0))[1]}, True
    while grown:
        more = {pid: birth for pid, (parent, birth) in known.items() if parent in found and pid not in found}
        found.update(more)
        grown = bool(more)
    return found


def stat(process: int) -> tuple[int, int]:
    """Its parent, and when it began; zeros where it is no more, or a zombie."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0, 0
    return (0, 0) if fields[0] == "Z" else (int(fields[1]), int(fields[19]))


def loaded(port: int, request: Request, seconds: float, *, connections: int, core: int) -> Load:
    """Let wrk ask for that long, each connection one thing after another."""
    command = [
        "wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "30s", "--latency",
        "-s", str(SCRIPT), f"http://127.0.0.1:{port}{request.path}",
        "--", str(request.folder), str(len(request.bodies)), request.kind,
    ]  # fmt: skip
    done = subprocess.run(pinned(core, command), capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise RuntimeError(f"wrk ended with {done.returncode}: {done.stderr[-1000:]}{done.stdout[-1000:]}")
    found = json.loads(lines[-1])
    return Load(
        rate=1e6 * found["requests"] / found["microseconds"],
        p50=found["p50"] / 1e3,
        p99=found["p99"] / 1e3,
        errors={name: found[name] for name in ("connect", "read", "write", "status", "timeout")},
    )
