"""A worker's ties to the store: the log of its answers, and a follower for each of its models."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, Protocol

from torchstone.core.errors import ConfigError
from torchstone.serve.rollout import record
from torchstone.serve.rollout.follow import Follower
from torchstone.serve.store import tables
from torchstone.serve.store.writer import Writer
from torchstone.serve.values import Router

PATIENCE = 120.0
"""Seconds in which a candidate has to be opened."""


class Exchangeable(Protocol):
    """What is needed of a service."""

    directory: Path
    router: Router | None

    async def open(self, artifact: str | None = None) -> Any: ...

    async def begin(self, candidate: Path, artifact: str) -> Any: ...

    async def end(self) -> None: ...


class Attached:
    """Ties to the store at ``url``. It may be away: then nothing is rolled out, and log rows wait."""

    def __init__(self, url: str, *, logs: bool = True) -> None:
        """Without a log (``logs``), what is promoted is followed, and a rollout is ended as soon as it is seen: nothing
        could be decided of it."""
        self.url = url
        self.log = Writer(url) if logs else None
        self._followers: dict[str, Follower] = {}

    def follow(self, services: Mapping[str, Exchangeable], loop: asyncio.AbstractEventLoop) -> None:
        """Let rollouts move each of the services, by name. Their methods run on ``loop``; this returns at once."""
        for name, service in services.items():
            follower = _follower(self.url, name, service, loop, logs=self.log is not None)
            service.router = follower
            follower.start()
            self._followers[name] = follower

    def opened(self, name: str, bundle: Path, artifact: str) -> None:
        """Let the store know, within seconds, that ``bundle`` was opened and is ``artifact``."""
        self._followers[name].opened(bundle, artifact)

    def tell(self) -> None:
        """Let it know at once. It may block for seconds."""
        for follower in self._followers.values():
            follower.tell()

    @property
    def failures(self) -> int:
        """Looks at the store that failed, of all followers."""
        return sum(follower.failures for follower in self._followers.values())

    def close(self, patience: float = 5.0) -> None:
        """Follow no more, and write what waits. Not to be called on the loop, which candidates are closed on."""
        for follower in self._followers.values():
            follower.close()
        self._followers.clear()
        if self.log is not None:
            self.log.close(patience)


def _follower(url: str, name: str, service: Exchangeable, loop: asyncio.AbstractEventLoop, *, logs: bool) -> Follower:
    def on_loop(work: Coroutine[Any, Any, Any]) -> None:
        asyncio.run_coroutine_threadsafe(work, loop).result(PATIENCE)

    def begin(bundle: Path, artifact: str) -> None:
        if not logs:
            raise ConfigError(
                "this server keeps no log, by which a rollout is decided", hint="start it without --no-log"
            )
        on_loop(service.begin(bundle, artifact))

    def replace(bundle: Path, artifact: str) -> None:
        before, service.directory = service.directory, bundle
        try:
            on_loop(service.open(artifact))
        except BaseException:
            service.directory = before
            raise

    return Follower(
        url,
        name,
        stable=service.directory,
        opens=begin,
        closes=lambda: on_loop(service.end()),
        replaces=replace,
    )


def current(url: str, places: Mapping[str, Path]) -> dict[str, Path]:
    """The bundles that answer now, by name: a rollout may have put others in the place of ``places``, which stay where
    the store is away or does not know better."""
    from sqlalchemy.exc import SQLAlchemyError

    engine = tables.engine(url)
    try:
        with engine.connect() as connection:
            found = {name: record.serving_of(connection, name) for name in places}
    except SQLAlchemyError:
        return dict(places)
    finally:
        engine.dispose()
    return {
        name: Path(row.bundle) if (row := found[name]) is not None and Path(row.bundle).is_dir() else place
        for name, place in places.items()
    }


def register(url: str, places: Mapping[str, Path]) -> dict[str, Path]:
    """Note in the store which bundles a server starts with; the bundles that it is to serve, by name. Raises a
    StorageError where the store cannot be used."""
    from sqlalchemy.exc import SQLAlchemyError

    from torchstone.core.artifact import load_artifact

    engine = tables.engine(url)
    tables.create(engine)
    try:
        with engine.begin() as connection:
            return {
                name: record.register(connection, name, place, load_artifact(place).id)
                for name, place in places.items()
            }
    except SQLAlchemyError as error:
        raise tables.unreachable(engine, error) from None
    finally:
        engine.dispose()
