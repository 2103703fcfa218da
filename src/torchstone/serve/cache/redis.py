"""Answers in Redis, shared by all workers and machines that serve the same model.

Redis may be slow, full or gone at any time. A round trip takes at most ``PATIENCE``, and an image waits for its own and
at most the one before it: what was not said by then is computed. After a failure Redis is left alone for a while.
Questions that come together are sent together, since a round trip costs the event loop more than all that is asked in
it.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from torchstone.core import console
from torchstone.core.errors import ConfigError

if TYPE_CHECKING:
    from redis.asyncio import Redis

PATIENCE = 0.02
"""Seconds of a round trip, at most; to a Redis nearby it takes less than one thousandth."""
CONNECT = 1.0
"""Seconds for a new connection: nobody waits for it, since nothing is asked before it stands."""
REST = (0.25, 5.0)
"""Seconds after a failure in which Redis is not asked, at first and at most."""
KEEP = 86_400
"""Seconds that Redis keeps an answer: those of models that are served no more must leave some day."""
TOGETHER = 256
"""Keys of one question, at most."""
WAITING = 1_024
"""Answers that wait to be sent there, at most; what finds no room is not kept."""


class RedisCache:
    """A cache (``values.Cache``) for one event loop, on one connection."""

    def __init__(self, url: str) -> None:
        """Raises a ConfigError for what is no URL of Redis; nothing is connected yet."""
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        try:
            self._redis: Redis = Redis.from_url(
                url, socket_timeout=CONNECT, socket_connect_timeout=CONNECT, retry=Retry(NoBackoff(), 0),
                max_connections=1,
            )  # fmt: skip
        except ValueError:  # what it says may hold the password
            raise ConfigError(
                "--cache names a Redis in a way that it does not understand", hint="redis://:PASSWORD@HOST:6379/0"
            ) from None
        self.hits = self.misses = self.errors = 0
        self._asked: list[tuple[bytes, asyncio.Future[bytes | None]]] = []
        self._given: dict[bytes, bytes] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._up = False
        self._told = False

    async def get(self, key: bytes) -> bytes | None:
        if self._task is None:
            self._task = asyncio.ensure_future(self._run())
        if not self._up:  # it is being connected, or left alone
            self.misses += 1
            return None
        future: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._asked.append((key, future))
        self._wake.set()
        value = await future
        if value is None:
            self.misses += 1
        else:
            self.hits += 1
        return value

    async def put(self, key: bytes, value: bytes) -> None:
        """Have ``value`` sent there soon. Waits for nothing."""
        if self._up and len(self._given) < WAITING:
            self._given[key] = value
            self._wake.set()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._down()
        with contextlib.suppress(Exception):
            await self._redis.aclose()

    async def _run(self) -> None:
        """Connect, ask and send; after a failure, begin again."""
        rest = REST[0]
        while True:
            try:
                async with asyncio.timeout(CONNECT):
                    await self._redis.ping()
                self._up = True
                if self._told:
                    console.say("the cache is back")
                self._told = False
                rest = REST[0]
                await self._exchange()
            except asyncio.CancelledError:
                raise
            except Exception as error:
                self.errors += 1
                if not self._told:
                    console.say(f"the cache cannot be reached ({type(error).__name__}); answers are computed meanwhile")
                self._told = True
            self._down()
            with contextlib.suppress(Exception):
                await self._redis.connection_pool.disconnect()
            await asyncio.sleep(rest)
            rest = min(2 * rest, REST[1])

    async def _exchange(self) -> None:
        """Ask what there is to ask, send what there is to send, until something fails."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._asked or self._given:
                asked, self._asked = self._asked[:TOGETHER], self._asked[TOGETHER:]
                given, self._given = self._given, {}
                found: list[bytes | None] = [None] * len(asked)
                try:
                    async with asyncio.timeout(PATIENCE):
                        found = await self._round_trip([key for key, _ in asked], given)
                finally:
                    for (_, future), value in zip(asked, found, strict=True):
                        if not future.done():
                            future.set_result(value)

    async def _round_trip(self, keys: list[bytes], given: dict[bytes, bytes]) -> list[bytes | None]:
        pipe: Any = self._redis.pipeline(transaction=False)
        if keys:
            pipe.mget(keys)
        for key, value in given.items():
            pipe.set(key, value, ex=KEEP)
        # What Redis refuses to keep (its memory is full) must not cost the answers that it has.
        results = await pipe.execute(raise_on_error=False)
        refused = [one for one in results if isinstance(one, Exception)]
        self.errors += len(refused)
        if keys and isinstance(results[0], Exception):
            raise results[0]
        return results[0] if keys else []

    def _down(self) -> None:
        """Nobody waits for it any more."""
        self._up = False
        asked, self._asked = self._asked, []
        self._given.clear()
        for _, future in asked:
            if not future.done():
                future.set_result(None)
