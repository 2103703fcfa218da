"""uvicorn as we run it: connections that have to say what they want in time and in few words, and a stop that leaves
nobody without an answer."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import select
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import uvicorn

from torchstone.serve.app import Application

if TYPE_CHECKING:
    import socket

MAX_HEADERS = 64 * 1024
"""Bytes of a request's headers. httptools itself would take any number."""
_MESSAGE = b'{"error":{"code":"malformed","message":"the headers are larger than 64 KiB"}}'
TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(_MESSAGE), _MESSAGE)
)


def protocol(header_timeout: float, body_timeout: float) -> type[asyncio.Protocol]:
    """uvicorn's HTTP protocol (on httptools where it is installed, else on h11) that closes a connection which does
    not send the headers of a request within ``header_timeout`` seconds, or sends more than ``MAX_HEADERS`` of them, or
    takes more than ``body_timeout`` for a body that was refused."""
    base = _on_httptools() if importlib.util.find_spec("httptools") is not None else _on_h11()

    class TimedProtocol(base):
        """The clock runs while a connection has no request in hand: from its beginning, or from the first byte after an
        answer, to the last header."""

        _clock: asyncio.TimerHandle | None = None
        _seen = 0

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._clock = self.loop.call_later(header_timeout, self._too_slow)

        def data_received(self, data: bytes) -> None:
            began_in_body = self.in_body()
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._stop_clock()
                return
            in_body = self.in_body()
            if self._clock is None:
                self._clock = self.loop.call_later(body_timeout if in_body else header_timeout, self._too_slow)
            # What ends a body (that was refused, and comes nevertheless) is mostly that body; only the next is counted.
            self._seen = 0 if in_body or began_in_body else self._seen + len(data)
            if self._seen > MAX_HEADERS and not self.transport.is_closing():
                self.transport.write(TOO_LARGE)
                self.transport.close()

        def on_response_complete(self) -> None:
            if self.cycle is not None and self.cycle.response_complete:
                self.cycle.body = bytearray()  # of a refused request: nobody reads it, and the connection may rest
            super().on_response_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_clock()
            super().connection_lost(exc)
            self.cycle = None  # else both would wait, with what was received, for a collection of garbage

        def _stop_clock(self) -> None:
            self._seen = 0
            if self._clock is not None:
                self._clock.cancel()
                self._clock = None

        def _too_slow(self) -> None:
            if not self.transport.is_closing():
                self.transport.close()

    return TimedProtocol


def _on_httptools() -> Any:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    class Httptools(HttpToolsProtocol):
        _within = False

        def on_headers_complete(self) -> None:
            self._within = True
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            self._within = False
            super().on_message_complete()

        def in_body(self) -> bool:
            """Whether the next byte belongs to a body."""
            return self._within

    return Httptools


def _on_h11() -> Any:
    import h11
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class H11(H11Protocol):
        def in_body(self) -> bool:
            """Whether the next byte belongs to a body."""
            return self.conn.their_state is h11.SEND_BODY

    return H11


class Server(uvicorn.Server):
    """A uvicorn server of our application that says when it is ready, and leaves signals to whoever runs it."""

    def __init__(self, application: Application, ready: Callable[[], None]) -> None:
        settings = application.deployment.settings
        super().__init__(
            uvicorn.Config(
                application,
                http=protocol(settings.header_timeout, settings.body_timeout),
                ws="none",
                lifespan="on",
                interface="asgi3",
                log_config=None,
                log_level="error",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=round(settings.keep_alive) or 1,
                timeout_graceful_shutdown=round(settings.timeout + settings.drain) + 1,
            )
        )
        self._deployment = application.deployment
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def stop(self) -> None:
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take the connections that wait to be taken, and then no more; tell those that are there to end with their
        next answer, and give them the time to ask for it. To close one that rests would lose the request that is on its
        way; one that the last worker has not taken is reset by the system."""
        while sockets and select.select(sockets, [], [], 0)[0]:
            await asyncio.sleep(0)
        for server in self.servers:
            server.close()
        self._deployment.draining = True
        deadline = time.monotonic() + self._deployment.settings.drain
        while self.server_state.connections and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)
