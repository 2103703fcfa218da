"""The batcher with a real model that was made slow, where time matters."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from torchstone.core.contracts import Runner
from torchstone.serve import batching as batching_module
from torchstone.serve.batching import Batch, Batcher
from torchstone.serve.decoding import Decoding
from torchstone.serve.model import Served, open_served
from torchstone.serve.refusals import Refusal
from torchstone.serve.settings import ServeSettings


@pytest.fixture(scope="module")
def served(digits: Path) -> Served:
    opened = open_served(digits, ServeSettings(bundles=(str(digits),), threads=1), "digits")
    return dataclasses.replace(opened, largest=8, steps=tuple(range(9)))


class Slow:
    """The runner, after a while; it notes the size of each batch."""

    def __init__(self, runner: Runner, seconds: float = 0.0) -> None:
        self.runner, self.seconds = runner, seconds
        self.sizes: list[int] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, batch: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        self.sizes.append(len(batch))
        assert self.gate.wait(30)
        time.sleep(self.seconds)
        return self.runner(batch)


def slowed(served: Served, seconds: float = 0.0) -> tuple[Served, Slow]:
    runner = Slow(served.runners[1][0], seconds)
    return dataclasses.replace(served, runners={1: (runner,)}), runner


@asynccontextmanager
async def batching(
    served: Served, *, queue: int = 64, max_delay: float = 0.002, **more: object
) -> AsyncIterator[Batcher]:
    decoding = Decoding(1, 10**6, asyncio.get_running_loop())
    batcher = Batcher(served, decoding, queue=queue, max_delay=max_delay, **more)  # pyright: ignore[reportArgumentType]
    try:
        yield batcher
    finally:
        await batcher.close()
        decoding.close()


def soon(seconds: float = 30.0) -> float:
    return asyncio.get_running_loop().time() + seconds


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


def test_answers_come_back_to_those_who_asked(served: Served, pictures: list[bytes], seen) -> None:
    async def main() -> None:
        async with batching(served) as batcher:
            results = await asyncio.gather(*batcher.submit(pictures, soon()))
        expected = served.answer(seen.images(slice(0, len(pictures))), 0)
        assert np.abs(np.stack([result.probabilities for result in results]) - expected).max() < 1e-5
        assert set(results[0].milliseconds) == {"queue", "decode", "infer"}
        assert all(value >= 0 for result in results for value in result.milliseconds.values())

    asyncio.run(main())


def test_what_waits_while_the_model_works_is_one_batch(served: Served, pictures: list[bytes]) -> None:
    slow, runner = slowed(served)

    async def main() -> None:
        async with batching(slow) as batcher:
            runner.gate.clear()
            first = batcher.submit(pictures[:1], soon())
            await until(lambda: runner.sizes == [1])
            others = batcher.submit(pictures[1:13], soon())
            await until(lambda: len(batcher._ready) == 12)
            runner.gate.set()
            await asyncio.gather(*first, *others)

    asyncio.run(main())
    assert runner.sizes == [1, 8, 4]


def test_one_image_does_not_wait_for_others_that_are_not_coming(served: Served, pictures: list[bytes]) -> None:
    async def main() -> float:
        async with batching(served, max_delay=5.0) as batcher:
            before = time.perf_counter()
            await batcher.submit(pictures[:1], soon())[0]
            return time.perf_counter() - before

    assert asyncio.run(main()) < 2.5


def test_the_first_image_waits_no_longer_than_its_delay(
    served: Served, pictures: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second image takes a second to decode: the first, with 50 ms to wait, is answered without it."""
    slow, runner = slowed(served)
    large = pictures[1] + bytes(20_000)  # decoders stop at the end of the picture

    async def main() -> float:
        async with batching(slow, max_delay=0.05) as batcher:
            real = Decoding._decode

            def decode(pool: Decoding, job) -> None:
                if job.content == large:
                    time.sleep(1.0)
                real(pool, job)

            monkeypatch.setattr(Decoding, "_decode", decode)
            before = time.perf_counter()
            first, second = batcher.submit([pictures[0], large], soon())
            await first
            took = time.perf_counter() - before
            await second
            return took

    assert asyncio.run(main()) < 0.9
    assert runner.sizes == [1, 1]


def test_a_full_queue_refuses_all_of_a_request_or_none(served: Served, pictures: list[bytes]) -> None:
    slow, runner = slowed(served)

    async def main() -> None:
        async with batching(slow, queue=4) as batcher:
            runner.gate.clear()
            accepted = batcher.submit(pictures[:3], soon())
            with pytest.raises(Refusal) as caught:
                batcher.submit(pictures[3:5], soon())
            assert caught.value.code == "full"
            assert caught.value.retry_after
            assert batcher.waiting == 3
            accepted += batcher.submit(pictures[3:4], soon())
            runner.gate.set()
            await asyncio.gather(*accepted)
            assert batcher.waiting == 0
            await asyncio.gather(*batcher.submit(pictures[:4], soon()))

    asyncio.run(main())


def test_a_queue_that_stands_is_bounded_in_seconds(
    served: Served, pictures: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A burst may wait; while more comes than is answered, nobody is let in who would wait long. At the pace of most
    batches: one that took long says nothing about the next."""
    slow, runner = slowed(served, 0.05)
    one_by_one = dataclasses.replace(slow, largest=1, steps=(0, 1))

    async def main() -> None:
        async with batching(one_by_one, max_wait=0.3) as batcher:
            for _ in range(4):
                await batcher.submit(pictures[:1], soon())[0]
            runner.seconds = 0.5
            await batcher.submit(pictures[:1], soon())[0]
            runner.seconds = 0.05
            burst = [batcher.submit(pictures[:1], soon())[0] for _ in range(20)]
            monkeypatch.setattr(batching_module, "BURST", 0.0)  # it is over
            with pytest.raises(Refusal, match=r"an image should wait .* for others at most") as caught:
                batcher.check_room(1)
            assert (caught.value.code, (caught.value.retry_after or 0) >= 1) == ("full", True)
            await asyncio.gather(*burst)
            monkeypatch.setattr(batching_module, "BURST", 1.0)
            accepted = batcher.submit(pictures[:1], soon())
            with pytest.raises(Refusal, match="an image should wait"):  # so soon after, the next burst is none
                for _ in range(20):
                    accepted += batcher.submit(pictures[:1], soon())
            assert len(accepted) <= 7  # 0.3 s of 0.05 s each; fewer where the machine is slower
            await asyncio.gather(*accepted)
            await asyncio.gather(*batcher.submit(pictures[:20], soon()))  # a large request alone is no queue

    asyncio.run(main())


def test_what_is_late_is_refused_and_not_computed(served: Served, pictures: list[bytes]) -> None:
    slow, runner = slowed(served)

    async def main() -> None:
        async with batching(slow) as batcher:
            runner.gate.clear()
            first = batcher.submit(pictures[:1], soon())
            await until(lambda: runner.sizes == [1])
            late = batcher.submit(pictures[1:4], soon(0.05))
            for future in late:
                with pytest.raises(Refusal, match="not answered within") as caught:
                    await future
                assert caught.value.code == "late"
            assert batcher.waiting == 1
            runner.gate.set()
            await first[0]
            await asyncio.gather(*batcher.submit(pictures[4:5], soon()))

    asyncio.run(main())
    assert runner.sizes == [1, 1]


def test_what_is_late_keeps_no_bytes_from_others(
    served: Served, pictures: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither those that wait behind a slow image nor pixels that wait for the model."""
    slow, runner = slowed(served)
    gate, real = threading.Event(), Decoding._decode
    large = bytes(100_000)
    pixels = np.zeros((2, 32, 32, 3), np.uint8)
    held = weakref.ref(pixels)

    def decode(pool: Decoding, job) -> None:
        assert gate.wait(30)
        real(pool, job)

    async def main(pixels: list[NDArray[np.uint8]]) -> None:
        async with batching(slow) as batcher:
            runner.gate.clear()
            first = batcher.submit_pixels(np.ones((1, 32, 32, 3), np.uint8), soon())
            await until(lambda: runner.sizes == [1])
            monkeypatch.setattr(Decoding, "_decode", decode)
            first += batcher.submit(pictures[:1], soon())
            before = sys.getrefcount(large)
            late = [*batcher.submit([large], soon(0.05)), *batcher.submit_pixels(pixels.pop(), soon(0.05))]
            while late:
                with pytest.raises(Refusal, match="not answered within"):
                    await late.pop()
            assert sys.getrefcount(large) == before
            assert held() is None
            gate.set()
            runner.gate.set()
            await asyncio.gather(*first)

    given = [pixels]
    del pixels
    asyncio.run(main(given))


def test_what_is_no_image_is_refused_and_the_others_are_answered(served: Served, pictures: list[bytes]) -> None:
    async def main() -> None:
        async with batching(served) as batcher:
            good, bad = batcher.submit([pictures[0], b"no image"], soon())
            with pytest.raises(Refusal, match="not an image") as caught:
                await bad
            assert caught.value.code == "unusable"
            assert (await good).probabilities.shape == (10,)

    asyncio.run(main())


def test_a_model_that_fails_takes_nobody_else_with_it(served: Served, pictures: list[bytes]) -> None:
    class Failing(Slow):
        def __call__(self, batch: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
            if not self.sizes:
                self.sizes.append(0)
                raise RuntimeError("out of luck")
            return super().__call__(batch)

    runner = Failing(served.runners[1][0])

    async def main() -> None:
        async with batching(dataclasses.replace(served, runners={1: (runner,)})) as batcher:
            with pytest.raises(RuntimeError, match="out of luck"):
                await batcher.submit(pictures[:1], soon())[0]
            assert (await batcher.submit(pictures[:1], soon())[0]).probabilities.shape == (10,)

    asyncio.run(main())


def test_closing_answers_what_was_accepted(served: Served, pictures: list[bytes]) -> None:
    slow, _ = slowed(served, 0.05)

    async def main() -> None:
        async with batching(slow) as batcher:
            futures = batcher.submit(pictures, soon())
            await batcher.close()
            assert all(future.done() and future.exception() is None for future in futures)

    asyncio.run(main())


def test_who_watches_sees_each_batch_and_cannot_end_it(served: Served, pictures: list[bytes]) -> None:
    watched: list[tuple[int, ...]] = []

    def inferred(batch: Batch) -> None:
        assert batch.pixels is not None
        assert batch.probabilities is not None
        watched.append((*batch.pixels.shape, *batch.probabilities.shape))
        raise ValueError("a watcher's own fault")

    async def main() -> None:
        async with batching(served, inferred=inferred) as batcher:
            for picture in pictures[:2]:
                await batcher.submit([picture], soon())[0]

    asyncio.run(main())
    assert watched == [(1, 32, 32, 3, 1, 10)] * 2
