"""One model behind one name: an image in, an answer out. What HTTP is, nobody knows in here.

An image is looked up in the cache, routed to the stable model or to a rollout's candidate, decoded, batched, answered,
and told to the log. The model can be exchanged at any moment: what one has accepted, it answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import math
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from torchstone.core import console
from torchstone.core.errors import ArtifactError
from torchstone.serve.batching import Batch, Batcher, Result
from torchstone.serve.decoding import Decoding
from torchstone.serve.model import Served, open_served
from torchstone.serve.refusals import Refusal
from torchstone.serve.settings import ServeSettings
from torchstone.serve.values import Answer, Cache, Log, Look, Observer, Role, Route, Router, new_id

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHADOWS = 32
"""Images of a candidate in shadow that wait at most; more are left out, and counted."""
CANARY_PART = 0.5
"""Of the time that a request has, what a canary may take; the rest is left for the stable model to answer instead."""
NO_ROOM = ("full", "stopping")
"""Refusals that say nothing of the model: it was never asked."""
_STABLE = Route("stable", False)
_AT_ONCE = {"queue": 0.0, "decode": 0.0, "infer": 0.0}


class _Image(NamedTuple):
    """One image of a request."""

    content: bytes
    sha256: bytes
    id: str
    key: str | None
    look: bool


class Service:
    """Answers images under one name. Its methods are called on the event loop that it was opened on."""

    def __init__(
        self,
        name: str,
        directory: Path,
        settings: ServeSettings,
        decoding: Decoding,
        *,
        cache: Cache | None = None,
        log: Log | None = None,
        router: Router | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.name = name
        self.directory = directory
        self.router = router
        self._settings = settings
        self._decoding = decoding
        self._cache = cache
        self._log = log
        self._observer = observer
        self._stable: Batcher | None = None
        self._candidate: Batcher | None = None
        self._changing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self.shadows_dropped = 0

    @property
    def ready(self) -> bool:
        return self._stable is not None

    @property
    def served(self) -> Served:
        """The stable model; a Refusal while there is none."""
        return self._batcher().served

    @property
    def waiting(self) -> int:
        return sum(one.waiting for one in (self._stable, self._candidate) if one is not None)

    async def open(self, artifact: str | None = None) -> Served:
        """Open the bundle, or open it again: the new model answers from here on, the old one ends with what it has.
        Raises an ArtifactError and changes nothing when the bundle does not prove itself, or is not ``artifact`` where
        that is asked for."""
        async with self.opened_again(artifact) as exchange:
            return exchange()

    @contextlib.asynccontextmanager
    async def opened_again(self, artifact: str | None = None) -> AsyncIterator[Callable[[], Served]]:
        """The bundle, opened beside the model that answers, and what exchanges the two; until the block ends, nothing
        else changes here. Raises as ``open``."""
        async with self._changing:
            served = await self._proved(self.directory, artifact)

            def exchange() -> Served:
                before, self._stable = self._stable, self._batching(served, "stable")
                self._retire(before)
                return served

            yield exchange

    async def begin(self, candidate: Path, artifact: str) -> Served:
        """Open a rollout's candidate; the router says which images it gets. Raises as ``open``."""
        async with self._changing:
            served = await self._proved(candidate, artifact)
            before, self._candidate = self._candidate, self._batching(served, "canary")
            self._retire(before)
            return served

    async def end(self) -> None:
        """No candidate any more."""
        async with self._changing:
            before, self._candidate = self._candidate, None
            self._retire(before)
            if self._observer is not None:
                self._observer.ended(self.name, "canary")

    async def close(self) -> None:
        """Answer what was accepted, and accept nothing more."""
        async with self._changing:
            for batcher in (self._stable, self._candidate):
                self._retire(batcher)
            self._stable = self._candidate = None
        while self._tasks:
            await asyncio.wait(self._tasks)

    def check_room(self, images: int) -> None:
        """Raise the Refusal that ``images`` more would meet now, before they are even received."""
        try:
            self._batcher().check_room(images)
        except Refusal as refusal:
            self._refused(refusal.code)
            raise

    async def classify(
        self, images: Sequence[bytes], *, timeout: float | None = None, key: str | None = None
    ) -> list[Answer]:
        """An answer for each encoded image, or the Refusal of the first that has none.

        ``timeout`` are the request's own seconds, at most the settings'; ``key`` is what a rollout's split knows the
        client by, if it says so.
        """
        batcher = self._batcher()
        deadline = self._deadline(timeout)
        if self._cache is None and self._log is None and self._candidate is None:  # nothing needs to know the image
            return await self._answered(batcher, "stable", images, deadline, self._looks(len(images)))
        if len(images) == 1:  # without a task of its own, which would cost as much as all the rest in here
            return [await self._one(images[0], deadline, key, look=self._wanted())]
        looks = self._looks(len(images))
        ones = (self._one(content, deadline, key, look=place in looks) for place, content in enumerate(images))
        return await _all([asyncio.ensure_future(one) for one in ones])

    async def classify_pixels(self, pixels: NDArray[np.uint8], *, timeout: float | None = None) -> list[Answer]:
        """The same for what a client has prepared itself, uint8[n, crop, crop, 3]: the stable model answers, past cache
        and log, for which there is no image."""
        batcher = self._batcher()
        crop = batcher.served.preprocess.crop
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (crop, crop, 3):
            raise Refusal(
                "malformed", f"the pixels are {pixels.dtype}{[*pixels.shape]}, not uint8[n, {crop}, {crop}, 3]"
            )
        futures = self._submitted(lambda: batcher.submit_pixels(pixels, self._deadline(timeout)))
        return [self._answer(batcher, "stable", result) for result in await self._results(futures)]

    async def _one(self, content: bytes, deadline: float, key: str | None, *, look: bool) -> Answer:
        """One image by way of the cache and the router, told to the log."""
        image = _Image(content, hashlib.sha256(content).digest(), new_id(), key, look)
        candidate = self._candidate
        route = _STABLE
        if candidate is not None and self.router is not None:
            route = self.router.route(image.id, key)
        if route.shadow and candidate is not None:
            self._shadow(candidate, image)
        if route.answer == "canary" and candidate is not None:
            now = asyncio.get_running_loop().time()
            until = now + CANARY_PART * max(0.0, deadline - now)
            with contextlib.suppress(Refusal):  # what the candidate cannot answer, the stable one does
                return await self._told(candidate, "canary", image, until)
        return await self._told(self._batcher(), "stable", image, deadline)

    async def _told(self, batcher: Batcher, role: Role, image: _Image, deadline: float) -> Answer:
        """The answer of one model, from the cache where it is there; the log is told, of a failure, too."""
        began = time.perf_counter()
        try:
            answer = await self._looked_up(batcher, role, image, deadline)
        except Refusal as refusal:
            # A canary that is full while the stable model has room is too slow, and costs an answer's time.
            if refusal.code not in NO_ROOM or (role == "canary" and refusal.code == "full"):
                self._logged(batcher, role, image, began, None, refusal.code)
            raise
        self._logged(batcher, role, image, began, answer, None)
        return answer

    async def _looked_up(self, batcher: Batcher, role: Role, image: _Image, deadline: float) -> Answer:
        looks = {0: image.id} if image.look and role == "stable" else {}
        if self._cache is None:
            return (await self._answered(batcher, role, [image.content], deadline, looks, image.id))[0]
        place = image.sha256 + batcher.served.identity
        known = _probabilities(await self._cache.get(place), len(batcher.served.labels))
        if batcher.closed:  # meanwhile the model was exchanged
            if role != "stable":
                raise Refusal("stopping", "the rollout has ended")
            return await self._looked_up(self._batcher(), role, image, deadline)
        if known is None:
            answer = (await self._answered(batcher, role, [image.content], deadline, looks, image.id))[0]
            await self._cache.put(place, answer.probabilities.tobytes())
            return answer
        label = int(known.argmax())
        answer = Answer(
            id=image.id, bundle=batcher.served.bundle, probabilities=known, label=label, confidence=float(known[label]),
            labels=batcher.served.labels, cached=True, milliseconds=_AT_ONCE,
        )  # fmt: skip
        if self._observer is not None:
            self._observer.answered(self.name, role, answer)
            if looks:
                look = Look(image.id, label, answer.confidence, math.nan, None)
                self._observer.looked(self.name, batcher.served.bundle, look)
        return answer

    async def _answered(
        self, batcher: Batcher, role: Role, images: Sequence[bytes], deadline: float, looks: Mapping[int, str],
        id: str | None = None,
    ) -> list[Answer]:  # fmt: skip
        """Answers of one model, computed. ``looks`` are the ids of images to be looked at, by place; ``id`` is that of
        a single one."""
        futures = self._submitted(lambda: batcher.submit(images, deadline, looks))
        results = await self._results(futures)
        return [self._answer(batcher, role, result, id or looks.get(place)) for place, result in enumerate(results)]

    def _wanted(self) -> bool:
        return self._observer is not None and self._observer.wanted(self.name)

    def _looks(self, images: int) -> dict[int, str]:
        """Which of the images of a request is looked at closely, if one is: any of them, not always the first."""
        return {random.randrange(images): new_id()} if self._wanted() else {}

    def _submitted(self, submit: Callable[[], list[asyncio.Future[Result]]]) -> list[asyncio.Future[Result]]:
        try:
            return submit()
        except Refusal as refusal:
            self._refused(refusal.code)
            raise

    async def _results(self, futures: list[asyncio.Future[Result]]) -> list[Result]:
        try:
            return await _all(futures)
        except Refusal as refusal:
            self._refused(refusal.code)
            raise
        except Exception as error:
            console.say(f"{self.name}: an image failed: {error!r}")
            self._refused("failed")
            raise Refusal("failed", "the model failed on this image") from error

    def _answer(self, batcher: Batcher, role: Role, result: Result, id: str | None = None) -> Answer:
        answer = Answer(
            id=id or new_id(), bundle=batcher.served.bundle, probabilities=result.probabilities, label=result.label,
            confidence=result.confidence, labels=batcher.served.labels, cached=False, milliseconds=result.milliseconds,
        )  # fmt: skip
        if self._observer is not None:
            self._observer.answered(self.name, role, answer)
        return answer

    def _shadow(self, candidate: Batcher, image: _Image) -> None:
        """Let the candidate answer for the log alone; nobody waits for it, and it takes no room from anybody."""
        if candidate.waiting >= SHADOWS:
            self.shadows_dropped += 1
            return

        async def answer() -> None:
            try:
                candidate.check_room(1)
                await self._told(candidate, "shadow", image, self._deadline(None))
            except Refusal as refusal:
                self.shadows_dropped += refusal.code in NO_ROOM

        self._later(answer())

    def _logged(
        self, batcher: Batcher, role: Role, image: _Image, began: float, answer: Answer | None, error: str | None
    ) -> None:
        if self._log is None:
            return
        self._log.predicted(
            id=image.id, time=time.time(), bundle=batcher.served.bundle, role=role, key=image.key,
            image=image.sha256.hex(), label=answer.label if answer is not None else -1,
            confidence=answer.confidence if answer is not None else 0.0,
            milliseconds=0.0 if answer is not None and answer.cached else (time.perf_counter() - began) * 1e3,
            error=error,
        )  # fmt: skip

    def _batcher(self) -> Batcher:
        if self._stable is None:
            raise Refusal("stopping", f"'{self.name}' is not being served now", hint="try again", retry_after=1)
        return self._stable

    def _deadline(self, timeout: float | None) -> float:
        most = self._settings.timeout
        return asyncio.get_running_loop().time() + (most if timeout is None else min(timeout, most))

    def _refused(self, code: str) -> None:
        if self._observer is not None:
            self._observer.refused(self.name, code)

    async def _proved(self, directory: Path, artifact: str | None) -> Served:
        served = await asyncio.to_thread(open_served, directory, self._settings, self.name)
        if artifact is not None and served.candidate.artifact.id != artifact:
            raise ArtifactError(
                f"'{directory}' is another model than the rollout was started with",
                hint="was it written again, or does it not run here, so that its FP32 model would be served?",
            )
        return served

    def _batching(self, served: Served, role: Role) -> Batcher:
        """``served`` answers in that role from now on."""
        observer = self._observer

        def inferred(batch: Batch) -> None:
            assert observer is not None
            observer.inferred(self.name, role, len(batch.items))
            for row, item in enumerate(batch.items):
                if item.look:
                    look = Look(item.look, batch.labels[row], batch.confidences[row], item.side, item.pixels)
                    observer.looked(self.name, served.bundle, look)

        if observer is not None:
            observer.opened(self.name, role, served)
        return Batcher(
            served, self._decoding, queue=self._settings.queue, max_delay=self._settings.max_delay_ms / 1e3,
            max_wait=self._settings.max_wait_ms / 1e3, inferred=inferred if observer is not None else None,
        )  # fmt: skip

    def _retire(self, batcher: Batcher | None) -> None:
        if batcher is not None:
            self._later(batcher.close())

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _probabilities(known: bytes | None, classes: int) -> NDArray[np.float32] | None:
    """What a cache keeps of an answer, if it is one: a cache outside of this process may hold anything."""
    if known is None or len(known) != 4 * classes:
        return None
    found = np.frombuffer(known, np.float32)
    return found if 0.99 < found.sum() < 1.01 and found.min() >= 0 else None  # NaN is neither


async def _all(awaited: list[Any]) -> list:
    """The results in their order, or the first error in it, after all have ended: none is left without a reader. What
    is wrong with one of several images names its place, from 0.

    ``awaited`` is emptied. An error knows the frames that it came through, those know the futures, and a future knows
    its error: all of it would wait, with the images, for a collection of garbage."""
    try:
        if len(awaited) == 1:
            return [await awaited[0]]
        found = await asyncio.gather(*awaited, return_exceptions=True)
    finally:
        awaited.clear()
    first = [(place, one) for place, one in enumerate(found) if isinstance(one, BaseException)][:1]
    if first:
        found.clear()
        place, error = first.pop()
        if isinstance(error, Refusal) and error.code == "unusable":
            raise Refusal(error.code, f"image {place}: {error.message}", hint=error.hint)
        raise error
    return found
