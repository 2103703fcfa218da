"""All that one worker serves: its services by name, its keys, what it may hold at once, and whether it is stopping."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from torchstone.core import console
from torchstone.core.errors import nearest
from torchstone.runtimes.onnxruntime import bound_arena
from torchstone.serve.board import Board
from torchstone.serve.cache import open_cache
from torchstone.serve.decoding import Decoding
from torchstone.serve.keys import Keys
from torchstone.serve.model import Served
from torchstone.serve.observing import Observing
from torchstone.serve.refusals import Refusal
from torchstone.serve.rollout.attached import Attached
from torchstone.serve.service import Service
from torchstone.serve.settings import ServeSettings, named_places
from torchstone.serve.store import tables
from torchstone.serve.store.writer import Writer


class Deployment:
    """What the routes ask. It is opened, used and closed on one event loop."""

    def __init__(self, settings: ServeSettings, keys: Keys, board: Board | None = None, slot: int = 0) -> None:
        """``board`` is shared with the other workers, ``slot`` is this one's; without one, it counts for itself."""
        self.settings = settings
        self.keys = keys
        self.places = named_places(settings.bundles)
        self.services: dict[str, Service] = {}
        self.draining = False
        """Answers say that the connection ends with them, and readiness says no."""
        self.tell_others: Callable[[], None] | None = None
        """Lets the other workers reload, too; None: there are none."""
        self.observing: Observing | None = None
        """None before the bundles are open."""
        self._board = board
        self._slot = slot
        self._cache = open_cache(settings)
        self._attached: Attached | None = None
        self._decoding: Decoding | None = None
        self._bodies = 0

    @property
    def store(self) -> str:
        """Address of the database of log and rollouts."""
        return store_of(self.settings)

    @property
    def log(self) -> Writer | None:
        """The log; None before the bundles are open, and where none is kept."""
        return self._attached.log if self._attached is not None else None

    @property
    def ready(self) -> bool:
        return not self.draining and bool(self.services) and all(one.ready for one in self.services.values())

    def service(self, name: str | None = None) -> Service:
        """The service of that name, or the first; a Refusal for a name that nothing is served under."""
        if name is None:
            name = next(iter(self.places))
        if name not in self.services:
            if name in self.places:
                raise Refusal("stopping", f"'{name}' is not being served yet", hint="try again", retry_after=1)
            raise Refusal("unknown", f"no model '{name[:100]}' is served", hint=nearest(name[:100], self.places))
        return self.services[name]

    async def open(self) -> None:
        """Open all bundles; raises what the first that cannot be served raises."""
        settings = self.settings
        if settings.arena_mb is not None:
            bound_arena(settings.arena_mb * 1_000_000)
        self._decoding = Decoding(settings.decoders_each, settings.max_pixels, asyncio.get_running_loop())
        opened = {}
        self._attached = Attached(self.store, logs=not settings.no_log)
        board = self._board or Board.of(1)
        self.observing = Observing(board, board.slot(self._slot), settings)
        for name, directory in self.places.items():
            opened[name] = Service(
                name, directory, settings, self._decoding, cache=self._cache, log=self._attached.log,
                observer=self.observing,
            )  # fmt: skip
            await opened[name].open()
        self.services = opened
        self._attached.follow(opened, asyncio.get_running_loop())
        for name, service in opened.items():
            self._attached.opened(name, service.directory, service.served.candidate.artifact.id)
        self.observing.begin(opened, self._cache, self._attached)

    async def reload(self) -> list[Served]:
        """Open all bundles again, and exchange the models when all are open: one that does not prove itself raises, and
        leaves all of them where they are."""
        async with contextlib.AsyncExitStack() as stack:
            opened = [await stack.enter_async_context(one.opened_again()) for one in self.services.values()]
            found = [exchange() for exchange in opened]
        if self._attached is not None:
            for service, served in zip(self.services.values(), found, strict=True):
                self._attached.opened(service.name, service.directory, served.candidate.artifact.id)
            await asyncio.to_thread(self._attached.tell)
        console.say(f"reload: {', '.join(f'{one.name} is {one.bundle}' for one in found)} from here on")
        return found

    async def close(self) -> None:
        """Answer what was accepted, and end."""
        for service in self.services.values():
            await service.close()
        if self._attached is not None:
            await asyncio.to_thread(self._attached.close)
        if self._cache is not None:
            await self._cache.close()
        if self._decoding is not None:
            await asyncio.to_thread(self._decoding.close)
        if self.observing is not None:
            self.observing.close()

    def hold(self, size: int) -> None:
        """Make room for ``size`` more bytes of bodies, or raise the Refusal; ``release`` gives it back."""
        if self._bodies + size > self.settings.max_bodies_mb * 1e6:
            raise Refusal(
                "full", f"requests of {self.settings.max_bodies_mb:g} MB are held already", hint="try again later",
                retry_after=1,
            )  # fmt: skip
        self._bodies += size

    def release(self, size: int) -> None:
        self._bodies -= size


def store_of(settings: ServeSettings) -> str:
    """Address of the database of log and rollouts."""
    return tables.url_of(settings.state_directory, settings.store)
