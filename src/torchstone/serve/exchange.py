"""One HTTP request and its reply, with the limits that every protocol shares."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from torchstone.serve.deployment import Deployment
from torchstone.serve.keys import key_of
from torchstone.serve.refusals import Refusal

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

JSON = b"application/json"
CLOSE = (b"connection", b"close")


class ClientGoneError(Exception):
    """Nobody is there any more to reply to."""


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """What answers one method of one path."""

    path: str
    """As starlette writes it: ``/v2/models/{name}/infer``."""
    method: str
    answer: Callable[[Exchange], Awaitable[None]]
    open: bool = False
    """Answers without an API key."""
    admin: bool = False
    """Answers to an admin key alone."""
    operation: Mapping[str, Any] = field(default_factory=dict)
    """Its entry in the OpenAPI document; empty: it has none."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application of this endpoint."""
        exchange: Exchange = scope["torchstone.exchange"]
        self._let_in(exchange)
        await self.answer(exchange)

    def _let_in(self, exchange: Exchange) -> None:
        keys = exchange.deployment.keys
        if self.admin:
            if not keys.administrable:
                raise Refusal("unknown", "this server has no admin key", hint="start it with --admin-keys FILE")
            if not keys.administers(exchange.api_key):
                raise Refusal("unauthorised", "this takes an admin key", hint="Authorization: Bearer KEY")
        elif not self.open and not keys.opens(exchange.api_key):
            raise Refusal("unauthorised", "this takes an API key", hint="Authorization: Bearer KEY, or X-API-Key: KEY")


class Exchange:
    """A request and the reply to it."""

    __slots__ = ("_began", "_held", "_query", "_receive", "_send", "deployment", "scope", "status")

    def __init__(self, scope: Scope, receive: Receive, send: Send, deployment: Deployment) -> None:
        self.scope = scope
        self.deployment = deployment
        self.status = 0
        """Of the reply; 0 before it."""
        self._began = time.perf_counter()
        self._receive = receive
        self._send = send
        self._held = 0
        self._query: dict[str, str] | None = None

    @property
    def api_key(self) -> bytes | None:
        return key_of(self.scope["headers"])

    @property
    def parameters(self) -> Mapping[str, str]:
        """What stands in the path's braces."""
        return self.scope["path_params"]

    @property
    def query(self) -> dict[str, str]:
        if self._query is None:
            text = self.scope["query_string"]
            try:
                pairs = parse_qsl(text.decode("ascii"), keep_blank_values=True, max_num_fields=50) if text else []
            except ValueError:
                raise Refusal("malformed", "the query string cannot be read") from None
            self._query = dict(pairs)
        return self._query

    def header(self, name: bytes) -> bytes:
        """The header of that (lower-case) name, empty where there is none."""
        for known, value in self.scope["headers"]:
            if known == name:
                return value
        return b""

    async def body(self) -> bytes:
        """All of the request's body. Raises a Refusal for one that is too large, too slow, or finds no room: room is
        taken by what has come, never by what is announced, which costs a client nothing. One that finds none for its
        next piece gives back at once what it has, so that of many the others come to their end."""
        settings = self.deployment.settings
        most = int(settings.max_body_mb * 1e6)
        announced = self.header(b"content-length")
        if announced and (not announced.isdigit() or len(announced) > 18 or int(announced) > most):
            raise self._too_large(most)
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(settings.body_timeout):
                more = True
                while more:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGoneError
                    chunk, more = message.get("body", b""), message.get("more_body", False)
                    size += len(chunk)
                    if size > most:
                        raise self._too_large(most)
                    self._hold(len(chunk))
                    chunks.append(chunk)
        except TimeoutError:
            raise Refusal("slow", f"the body did not come within {settings.body_timeout:g} s") from None
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def reply(
        self, content: bytes, *, status: int = 200, kind: bytes = JSON, headers: list[tuple[bytes, bytes]] | None = None
    ) -> None:
        fields = [(b"content-type", kind), (b"content-length", b"%d" % len(content)), *(headers or ())]
        if self.deployment.draining:
            fields.append(CLOSE)
        self.status = status
        self._count()
        await self._send({"type": "http.response.start", "status": status, "headers": fields})
        await self._send({"type": "http.response.body", "body": content})

    async def reply_json(self, value: Any, *, status: int = 200) -> None:
        await self.reply(to_json(value), status=status)

    async def refuse(self, refusal: Refusal) -> None:
        """The refusal as every route gives it: JSON with a code, a message and, where there is one, a hint."""
        error = {"code": refusal.code, "message": refusal.message}
        if refusal.hint:
            error["hint"] = refusal.hint
        headers: list[tuple[bytes, bytes]] = []
        if refusal.retry_after is not None:
            headers.append((b"retry-after", b"%d" % refusal.retry_after))
        if refusal.code == "unauthorised":
            headers.append((b"www-authenticate", b"Bearer"))
        if refusal.code in ("slow", "too_large"):  # what is left of the body is not waited for
            headers.append(CLOSE)
        await self.reply(to_json({"error": error}), status=refusal.status, headers=headers)

    def end(self) -> None:
        """Give back the room that the body took."""
        if self._held:
            self.deployment.release(self._held)
            self._held = 0

    def _count(self) -> None:
        """Before anything is sent: what a killed process has answered is counted."""
        observing = self.deployment.observing
        if observing is not None:
            endpoint = self.scope.get("endpoint")
            path = endpoint.path if isinstance(endpoint, Endpoint) else "other"
            observing.replied(path, self.status, time.perf_counter() - self._began)

    def _hold(self, size: int) -> None:
        self.deployment.hold(size)
        self._held += size

    def _too_large(self, most: int) -> Refusal:
        return Refusal("too_large", f"the body is larger than the {most / 1e6:g} MB that are taken")


def to_json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def from_json(content: bytes) -> Any:
    """The parsed body; a Refusal where it is no JSON."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise Refusal("malformed", "the body is not JSON") from None
