"""An open-loop client: each request is sent when it is due, whatever has become of those before it.

Users do not wait for one another. A client that asks its next question after the last answer slows down together with
the server and then has few slow answers to tell of (coordinated omission). Here the moments are drawn beforehand, as a
Poisson process with a seed, and a request's latency counts from the moment it was due: what waits behind a stall, in
the server or for a connection, has waited.

What the client itself adds is measured as well: how late it came round to each request (``Session.lateness``).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import http.client
import math
import os
import select
import selectors
import ssl
import time
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httptools
import numpy as np

from torchstone.core.errors import ConfigError
from torchstone.core.seeding import generator

if TYPE_CHECKING:
    from numpy.typing import NDArray

PATH = "/v1/classify"
"""Where a URL without a path is taken to lead."""
UNFINISHED, REFUSED, BROKEN, SILENT = 0, -1, -2, -3
"""What a request has come to that has no HTTP status: it was on its way when all was ended; no connection was to be
had; the connection ended before the answer was whole; no answer came in time."""
BEFOREHAND = 16
"""Connections that are opened before the first request is due."""
AT_ONCE = 32
"""Requests that are sent at most before answers are looked at again."""
SWEEP = 0.05
"""Seconds from one look for requests that have waited too long to the next."""
GRACE = 1.0
"""Seconds that answers on their way have to arrive when all is ended early."""
CACHED = b'"cached":true'


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where requests go."""

    host: str
    port: int
    path: str
    """With the query."""
    secure: bool

    @classmethod
    def of(cls, url: str) -> Target:
        """A ConfigError for what is no http or https URL, or has a user and a password in it."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
            url.encode("ascii")
        except ValueError as error:
            raise ConfigError(f"'{url}' is no URL: {error}", hint="http://127.0.0.1:8080") from None
        if parts.scheme not in ("http", "https") or not host or any(ord(letter) <= 32 for letter in url):
            raise ConfigError(f"'{url}' is no http or https URL", hint="http://127.0.0.1:8080")
        if parts.username is not None:
            raise ConfigError("a key does not go into the URL", hint="TORCHSTONE_API_KEYS, or --api-keys FILE")
        secure = parts.scheme == "https"
        path = (parts.path if parts.path not in ("", "/") else PATH) + (f"?{parts.query}" if parts.query else "")
        return cls(host=host, port=port or (443 if secure else 80), path=path, secure=secure)

    @property
    def named(self) -> str:
        """Host and port, as a request names them."""
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    def headers(self, key: str | None) -> dict[str, str]:
        found = {"host": self.named, "content-type": "application/octet-stream"}
        return found if key is None else {**found, "authorization": f"Bearer {key}"}


@dataclass(frozen=True, kw_only=True)
class Load:
    """What is to be sent, and when."""

    target: Target
    due: NDArray[np.float64]
    """Seconds from the beginning, ascending: ``arrivals`` draws them."""
    bodies: Sequence[bytes]
    """Encoded images, of which each request has one at random."""
    key: str | None = None
    seed: int = 0
    connections: int = 256
    """That are open at most. A request that finds none waits, which counts."""
    timeout: float = 10.0
    """Seconds from the moment a request is due until its answer is given up."""
    unique: bool = False
    """Put bytes that no decoder reads behind each image, so that no two are the same to a cache."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """What became of each request that was due; by their order, seconds from the beginning."""

    due: NDArray[np.float64]
    sent: NDArray[np.float64]
    """When the client came round to it."""
    done: NDArray[np.float64]
    """When its answer was whole; NaN: it has none."""
    status: NDArray[np.int16]
    """Of HTTP, or one of the names above."""
    cached: int
    """Answers that say that they come from torchstone's cache."""
    waited: int
    """Requests that found all connections taken."""
    opened: int
    """Connections."""
    busy: float
    """Seconds of processor that the client took."""
    seconds: float
    """From the first request's moment to the last answer."""
    ended: float
    """When no answer was waited for any more."""
    interrupted: bool

    @property
    def latencies(self) -> NDArray[np.float64]:
        """Seconds from the moment each request was due to its answer; infinite where there was none with status 200."""
        return np.where(self.status == http.client.OK, self.done - self.due, math.inf)

    @property
    def at_least(self) -> NDArray[np.float64]:
        """The same, but for requests that were on their way at the end: those had waited for so long."""
        return np.where(self.status == UNFINISHED, self.ended - self.due, self.latencies)

    @property
    def lateness(self) -> NDArray[np.float64]:
        """Seconds by which the client came round late to each request."""
        return self.sent - self.due


def arrivals(rate: float, seconds: float, seed: int) -> NDArray[np.float64]:
    """Moments of a Poisson process of ``rate`` a second, in seconds from 0 to ``seconds``: always the same ones for the
    same arguments."""
    draws = generator("load", seed)
    found = np.empty(0)
    while not len(found) or found[-1] < seconds:
        gaps = draws.exponential(1 / rate, max(16, math.ceil(rate * seconds / 4)))
        found = np.concatenate([found, (found[-1] if len(found) else 0.0) + np.cumsum(gaps)])
    return found[found < seconds]


def ask_once(load: Load) -> tuple[str, int, bytes]:
    """The address that answers, the status and the body of one request. A ConfigError where nothing answers."""
    target = load.target
    kind = http.client.HTTPSConnection if target.secure else http.client.HTTPConnection
    with contextlib.closing(kind(target.host, target.port, timeout=load.timeout)) as connection:
        try:
            connection.connect()
            address = connection.sock.getpeername()[0]
            connection.request("POST", target.path, load.bodies[0], target.headers(load.key))
            reply = connection.getresponse()
            return address, reply.status, reply.read()
        except (OSError, http.client.HTTPException) as error:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise ConfigError(
                f"nothing answers at {target.named}: {why.lower()}", hint="is the server running, and is that its port?"
            ) from None


def run(load: Load, address: str, tell: Callable[[float], None], stopped: Callable[[], bool]) -> Session:
    """Send what is due to ``address`` (the target's, as ``ask_once`` found it) and wait for the answers. ``tell`` is
    called now and then with the seconds that have passed; once ``stopped`` says so nothing more is sent."""
    _allow_files(load.connections + 64)
    gc.collect()
    gc.disable()  # a collection would be a pause of everything
    try:
        with asyncio.Runner(loop_factory=_loop) as runner:
            return runner.run(_session(load, address, tell, stopped))
    finally:
        gc.enable()


async def _session(
    load: Load, address: str, tell: Callable[[float], None], stopped: Callable[[], bool]
) -> Session:  # fmt: skip
    client = _Client(load, address)
    await client.open_some(min(BEFOREHAND, load.connections))
    busy = time.process_time()
    client.begin()
    while not client.finished:
        await asyncio.sleep(SWEEP)
        client.sweep(stopped())
        tell(client.now())
    busy = time.process_time() - busy
    seconds, ended = client.last, client.now()
    await client.close()
    count = client.count
    return Session(
        due=load.due[:count], sent=np.array(client.sent)[:count], done=np.array(client.done)[:count],
        status=np.array(client.status, np.int16)[:count], cached=client.cached, waited=client.waited,
        opened=client.opened, busy=busy, seconds=max(seconds, float(load.due[count - 1]) if count else 0.0),
        ended=ended, interrupted=client.interrupted,
    )  # fmt: skip


class _Client:
    """The requests, and the connections that they share. All of it happens on one event loop."""

    def __init__(self, load: Load, address: str) -> None:
        self._load = load
        self._address = address
        self._loop = asyncio.get_running_loop()
        self._due = array("d", load.due)
        self.count = len(load.due)
        """Requests that are sent in all."""
        self.sent = array("d", [math.nan]) * self.count
        self.done = array("d", [math.nan]) * self.count
        self.status = array("h", [UNFINISHED]) * self.count
        self.cached = self.waited = self.opened = 0
        self.last = 0.0
        """When the last request was settled."""
        self.interrupted = False
        self._zero = self._end = math.inf
        self._next = 0
        self._settled = 0
        choice = generator("images of load", load.seed).integers(len(load.bodies), size=self.count)
        self._choice = array("q", choice.astype(np.int64))
        self._heads = [self._head(len(body)) for body in load.bodies]
        self._stamp = os.urandom(8)
        self._free: deque[_Connection] = deque()
        self._flying: dict[_Connection, None] = {}
        self._waiting: deque[int] = deque()
        self._open: set[_Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._secure = ssl.create_default_context() if load.target.secure else None

    @property
    def finished(self) -> bool:
        return self._settled >= self.count or self.now() > self._end

    def now(self) -> float:
        return self._loop.time() - self._zero

    def begin(self) -> None:
        self._zero = self._loop.time()
        self._dispatch()

    def sweep(self, stop: bool) -> None:
        """Give up what has waited too long; with ``stop`` send nothing more."""
        now = self.now()
        if stop and not self.interrupted:
            self.interrupted = True
            self.count, self._end = self._next, now + GRACE
        while self._flying and self._due[(first := next(iter(self._flying))).request] + self._load.timeout < now:
            first.give_up(SILENT)
        while self._waiting and self._due[self._waiting[0]] + self._load.timeout < now:
            self.settle(self._waiting.popleft(), SILENT)

    async def open_some(self, connections: int) -> None:
        """One after the other, so that they spread over the processes that accept them."""
        for _ in range(connections):
            self._connect()
            await asyncio.gather(*self._opening)

    async def close(self) -> None:
        self._waiting.clear()
        for task in self._opening:
            task.cancel()
        for connection in self._open:
            connection.leave()
        await asyncio.sleep(0)

    def settle(self, request: int, status: int) -> None:
        self.last = self.now()
        self.status[request] = status
        if status > 0:
            self.done[request] = self.last
        self._settled += 1

    def is_free(self, connection: _Connection) -> None:
        """``connection`` takes the request that has waited longest, or rests."""
        self._flying.pop(connection, None)
        if self._waiting:
            self._send(connection, self._waiting.popleft())
        else:
            self._free.append(connection)

    def is_open(self, connection: _Connection) -> None:
        self.opened += 1
        self._open.add(connection)
        self.is_free(connection)

    def is_gone(self, connection: _Connection) -> None:
        """Closed, by whomever."""
        self._open.discard(connection)
        self._flying.pop(connection, None)
        with contextlib.suppress(ValueError):
            self._free.remove(connection)
        self._connect_for_those_who_wait()

    def _dispatch(self) -> None:
        """Send what is due, and come back when the next one is."""
        for _ in range(AT_ONCE):
            now = self.now()
            if self._next >= self.count or self._due[self._next] > now:
                break
            self.sent[self._next] = now
            self._next += 1
            self._take(self._next - 1)
        if self._next < self.count:
            self._loop.call_at(self._zero + self._due[self._next], self._dispatch)

    def _take(self, request: int) -> None:
        while self._free:
            connection = self._free.popleft()  # the one that has rested longest: all workers get their share
            if not connection.closing:
                self._send(connection, request)
                return
        self._waiting.append(request)
        if len(self._open) + len(self._opening) >= self._load.connections:
            self.waited += 1
        self._connect_for_those_who_wait()

    def _send(self, connection: _Connection, request: int) -> None:
        self._flying[connection] = None
        choice = self._choice[request]
        tail = b"%b%08x" % (self._stamp, request) if self._load.unique else b""
        connection.send(request, b"".join((self._heads[choice], self._load.bodies[choice], tail)))

    def _head(self, size: int) -> bytes:
        target = self._load.target
        headers = {**target.headers(self._load.key), "content-length": str(size + 16 * self._load.unique)}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"POST {target.path} HTTP/1.1\r\n{lines}\r\n".encode()

    def _connect_for_those_who_wait(self) -> None:
        room = self._load.connections - len(self._open) - len(self._opening)
        for _ in range(min(room, len(self._waiting) - len(self._opening))):
            self._connect()

    def _connect(self) -> None:
        task = self._loop.create_task(self._connected())
        self._opening.add(task)
        task.add_done_callback(self._tried)

    def _tried(self, task: asyncio.Task[None]) -> None:
        self._opening.discard(task)
        self._connect_for_those_who_wait()

    async def _connected(self) -> None:
        target = self._load.target
        secure: dict[str, Any] = {"ssl": self._secure, "server_hostname": target.host} if target.secure else {}
        try:
            async with asyncio.timeout(self._load.timeout):
                await self._loop.create_connection(lambda: _Connection(self), self._address, target.port, **secure)
        except (OSError, TimeoutError):
            if self._waiting:
                self.settle(self._waiting.popleft(), REFUSED)


class _Connection(asyncio.Protocol):
    """One connection that is kept, with at most one request on its way."""

    def __init__(self, client: _Client) -> None:
        self.request = -1
        """On its way; -1: none."""
        self._client = client
        self._parser = httptools.HttpResponseParser(self)
        self._transport: Any = None

    @property
    def closing(self) -> bool:
        return self._transport.is_closing()

    def send(self, request: int, content: bytes) -> None:
        self.request = request
        self._transport.write(content)

    def give_up(self, status: int) -> None:
        """Settle what is on its way, and close."""
        request, self.request = self.request, -1
        if request >= 0:
            self._client.settle(request, status)
        self._client.is_gone(self)
        self._transport.abort()

    def leave(self) -> None:
        self.request = -1
        self._transport.abort()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._client.is_open(self)

    def data_received(self, data: bytes) -> None:
        try:
            if self.request < 0:
                self.give_up(BROKEN)  # an answer to nothing
            else:
                self._parser.feed_data(data)
        except httptools.HttpParserCallbackError:
            raise  # ours
        except httptools.HttpParserError:
            self.give_up(BROKEN)

    def on_body(self, body: bytes) -> None:
        if CACHED in body:
            self._client.cached += 1

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < http.client.OK:  # an interim answer
            return
        if self.request < 0:  # a second answer
            self.give_up(BROKEN)
            return
        request, self.request = self.request, -1
        self._client.settle(request, status)
        if self._parser.should_keep_alive() and not self.closing:
            self._client.is_free(self)
        else:
            self._client.is_gone(self)
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        request, self.request = self.request, -1
        if request >= 0:
            self._client.settle(request, BROKEN)
        self._client.is_gone(self)


def _loop() -> asyncio.AbstractEventLoop:
    """An event loop whose timers are late by some 0.1 ms. Python rounds what epoll waits up to whole milliseconds, as
    uvloop does, and a millisecond is what a small network takes in all."""
    if not hasattr(selectors, "EpollSelector"):
        return asyncio.SelectorEventLoop()

    class Precise(selectors.EpollSelector):
        def select(self, timeout: float | None = None) -> Any:
            if timeout is not None and timeout > 0:
                select.select([self.fileno()], [], [], timeout)
                timeout = 0
            return super().select(timeout)

    return asyncio.SelectorEventLoop(Precise())


def _allow_files(wanted: int) -> None:
    """Let this process have that many files open, as far as it may allow itself."""
    try:
        import resource
    except ImportError:  # not a Unix
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
