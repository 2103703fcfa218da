"""A server as a user starts it, and the smallest client: both end with the test."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daemons import eventually as wait_for

SECONDS = 60
"""Longest wait for a server, on a machine that does much else."""


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)


@dataclass
class Live:
    """A running ``torchstone serve``."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    host: str = ""
    port: int = 0

    def ask(self, path: str, body: bytes | str | None = None, *, method: str | None = None, **headers: str) -> Reply:
        """One request on a connection of its own; ``x_api_key="…"`` is a header."""
        with contextlib.closing(http.client.HTTPConnection(self.host, self.port, timeout=SECONDS)) as connection:
            return ask(connection, path, body, method=method, **headers)

    def classify(self, body: bytes, **headers: str) -> Any:
        reply = self.ask("/v1/classify", body, **headers)
        assert reply.status == 200, reply.content
        return reply.json["predictions"]

    @property
    def workers(self) -> list[int]:
        """Process ids of the workers."""
        found = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(number) for number in found.split()]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send the signal, wait, and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(SECONDS)

    def said(self, words: str) -> bool:
        return any(words in line for line in self.lines)


def ask(
    connection: http.client.HTTPConnection, path: str, body: bytes | str | None = None, *, method: str | None = None,
    **headers: str,
) -> Reply:  # fmt: skip
    """One request on this connection."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method or ("GET" if body is None else "POST"), path, body, named)
    response = connection.getresponse()
    return Reply(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())


def form(parts: Sequence[tuple[str, str | None, bytes]]) -> tuple[bytes, str]:
    """multipart/form-data of (name, file name, content), and its Content-Type."""
    boundary = "a-boundary-that-no-picture-holds"
    body = b""
    for name, filename, content in parts:
        quoted = f'; filename="{filename}"' if filename is not None else ""
        body += (
            f'--{boundary}\r\ncontent-disposition: form-data; name="{name}"{quoted}\r\n\r\n'.encode()
            + content
            + b"\r\n"
        )
    return body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


@contextlib.contextmanager
def serving(
    *arguments: str | Path,
    python: str | Path = sys.executable,
    env: dict[str, str] | None = None,
    meanwhile: Callable[[Live], object] | None = None,
) -> Iterator[Live]:
    """``torchstone serve ARGUMENTS`` on a free port, from its first answer to the end of the block. ``meanwhile`` is
    done while it starts."""
    command = [str(python), "-m", "torchstone", "serve", *map(str, arguments), "--port", "0"]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **(env or {})}
    )
    live = Live(process)
    reader = threading.Thread(target=_read, args=(live,), daemon=True)
    reader.start()
    try:
        if meanwhile is not None:
            meanwhile(live)
        assert wait_for(lambda: live.port or process.poll() is not None), live.lines
        assert live.port, "".join(live.lines)
        yield live
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        reader.join(SECONDS)
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def _read(live: Live) -> None:
    assert live.process.stderr is not None
    for line in live.process.stderr:
        live.lines.append(line)
        if found := re.search(r"serving on http://([\d.]+):(\d+)", line):
            live.host, live.port = found[1], int(found[2])


class Load:
    """Clients that ask one thing after another, each on a connection that it keeps, until they are told to stop."""

    def __init__(self, live: Live, images: Sequence[bytes], clients: int = 4) -> None:
        self.live = live
        self.images = images
        self.statuses: list[int] = []
        self.bundles: set[str] = set()
        self.failures: list[str] = []
        """Requests that were sent, and not answered."""
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._client, args=(row,)) for row in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(SECONDS)

    def _client(self, row: int) -> None:
        connection: http.client.HTTPConnection | None = None
        while not self._stopping.is_set():
            if connection is None:
                connection = http.client.HTTPConnection(self.live.host, self.live.port, timeout=SECONDS)
                try:
                    connection.connect()
                except OSError:  # the server has gone: that is no request
                    return
            try:
                reply = ask(connection, "/v1/classify", self.images[row % len(self.images)])
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection.close()
                connection = None
                continue
            self.statuses.append(reply.status)
            if reply.status == 200:
                self.bundles.add(reply.json["predictions"][0]["bundle"])
            if reply.headers.get("connection") == "close":
                connection.close()
                connection = None
        if connection is not None:
            connection.close()
