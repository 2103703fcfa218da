"""The cache of answers: bounded in memory, shared over a real Redis, and never in anybody's way."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from daemons import Redis
from live import Live, Load, serving, wait_for
from torchstone.core.errors import ConfigError
from torchstone.serve.cache import open_cache
from torchstone.serve.cache.memory import OVERHEAD, MemoryCache
from torchstone.serve.settings import ServeSettings


def key(number: int) -> bytes:
    return number.to_bytes(64, "big")


def test_memory_keeps_what_was_asked_for_last() -> None:
    async def main() -> None:
        cache = MemoryCache(3 * (64 + 40 + OVERHEAD))
        for number in range(3):
            await cache.put(key(number), bytes([number]) * 40)
        assert await cache.get(key(0)) == bytes(40)
        await cache.put(key(3), b"x" * 40)
        assert await cache.get(key(1)) is None  # 0 was asked for since
        assert [await cache.get(key(number)) is not None for number in (0, 2, 3)] == [True] * 3
        assert (cache.hits, cache.misses, cache.errors) == (4, 1, 0)

    asyncio.run(main())


def test_memory_is_bounded_by_bytes_whatever_is_put() -> None:
    async def main() -> None:
        cache = MemoryCache(100_000)
        for number in range(2_000):
            await cache.put(key(number % 700), b"x" * (number * 37 % 4_000))
            assert cache.size <= 100_000
        await cache.put(key(9_999), b"x" * 100_000)  # larger than all that may be kept
        assert await cache.get(key(9_999)) is None
        assert cache.size > 50_000
        await cache.close()
        assert cache.size == 0

    asyncio.run(main())


def test_a_cache_is_chosen_by_its_url() -> None:
    assert open_cache(ServeSettings(bundles=("a",), cache="none")) is None
    assert isinstance(open_cache(ServeSettings(bundles=("a",))), MemoryCache)
    for wrong in ("memcached://here", "memroy", "redis//here"):
        with pytest.raises(ConfigError, match="none of memory, none and redis"):
            open_cache(ServeSettings(bundles=("a",), cache=wrong))


@pytest.mark.parametrize(
    "wrong", ["redis//:hunter2@here", "redis:/:hunter2@here/0", "redsi:hunter2@here://", "rediss:/hunter2"]
)
def test_a_mistyped_address_is_said_without_its_password(wrong: str) -> None:
    with pytest.raises(ConfigError, match="none of memory, none and redis") as caught:
        open_cache(ServeSettings(bundles=("a",), cache=wrong))
    assert "hunter2" not in str(caught.value)


def cached(live: Live, picture: bytes) -> bool:
    (prediction,) = live.classify(picture)
    return prediction["cached"]


def test_the_same_image_is_computed_once(server: Live, pictures: list[bytes]) -> None:
    first, again = (server.classify(pictures[-1])[0] for _ in range(2))
    assert again["cached"]
    assert again["top"] == first["top"]
    assert again["id"] != first["id"]
    assert not cached(server, pictures[-2])


def counted(live: Live, name: str) -> float:
    """One number of ``/metrics``."""
    text = live.ask("/metrics").content.decode()
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


def test_redis_killed_and_started_again_under_load(redis: Redis, digits: Path, pictures: list[bytes]) -> None:
    """Nobody notices but the counters; and the cache comes back by itself."""
    with (
        serving(digits, "--workers", "2", "--cache", redis.url) as live,
        Load(live, pictures, clients=4) as load,
    ):
        assert wait_for(lambda: counted(live, "torchstone_cache_hits_total") > 50)
        redis.send(signal.SIGKILL)
        before = len(load.statuses)
        assert wait_for(lambda: len(load.statuses) > before + 100)
        assert wait_for(lambda: counted(live, "torchstone_cache_errors_total") > 0)  # carried over once a second
        redis.begin()
        assert wait_for(lambda: live.said("the cache is back"))
        hits = counted(live, "torchstone_cache_hits_total")
        assert wait_for(lambda: counted(live, "torchstone_cache_hits_total") > hits + 50)
    assert load.failures == []
    assert set(load.statuses) == {200}


def test_a_redis_that_hangs_holds_nobody_up(redis: Redis) -> None:
    """It takes what it is asked and says nothing: questions come back without an answer, and soon none is asked."""

    async def main() -> None:
        cache = open_cache(ServeSettings(bundles=("a",), cache=redis.url))
        assert cache is not None
        assert await cache.get(key(1)) is None  # not connected yet, which is not waited for
        deadline = time.monotonic() + 60
        while await cache.get(key(1)) is None and time.monotonic() < deadline:
            await cache.put(key(1), b"an answer")
            await asyncio.sleep(0.01)
        assert await cache.get(key(1)) == b"an answer"
        redis.send(signal.SIGSTOP)
        try:
            together = await asyncio.gather(*(cache.get(key(1)) for _ in range(400)))
            assert together == [None] * 400
            assert cache.errors > 0
            errors = cache.errors
            for _ in range(100):  # it is left alone: these wait for nothing
                assert await cache.get(key(1)) is None
                await cache.put(key(2), b"another")
            assert cache.errors <= errors + 1
        finally:
            redis.send(signal.SIGCONT)
        while await cache.get(key(1)) is None and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        assert await cache.get(key(1)) == b"an answer"
        await cache.close()

    asyncio.run(main())


def test_what_others_put_into_redis_is_no_answer(redis: Redis, digits: Path, pictures: list[bytes]) -> None:
    """Of the wrong length, or no probabilities: computed, and put in its place."""
    client = pytest.importorskip("redis").Redis(port=redis.port)
    with serving(digits, "--cache", redis.url) as live:
        assert wait_for(lambda: cached(live, pictures[0]))
        right = live.classify(pictures[0])[0]["top"]
        (place,) = client.keys()
        for wrong in (b"", b"x" * 39, b"\xff" * 40, os.urandom(4096), b"\x00" * 40):
            client.set(place, wrong)
            found = live.classify(pictures[0])[0]
            assert (found["cached"], found["top"]) == (False, right)
            assert wait_for(lambda: cached(live, pictures[0]))
    client.close()
