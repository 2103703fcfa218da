"""A service whose candidate is slow or full: the stable model answers all the same, and nothing is held against anybody
who was never asked."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from test_batching import Slow, until

from torchstone.core.artifact import load_artifact
from torchstone.core.errors import ArtifactError
from torchstone.core.values import Candidate
from torchstone.export import bundle
from torchstone.serve import service as services
from torchstone.serve.decoding import Decoding
from torchstone.serve.deployment import Deployment
from torchstone.serve.keys import Keys
from torchstone.serve.model import Served, open_served
from torchstone.serve.rollout import record
from torchstone.serve.rollout.attached import register
from torchstone.serve.service import Service
from torchstone.serve.settings import ServeSettings
from torchstone.serve.store import tables
from torchstone.serve.values import Route


class Noted:
    """A log that keeps what it is told."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str | None]] = []

    def predicted(self, **row: Any) -> None:
        self.rows.append((row["role"], row["error"]))

    def feedback(self, **row: Any) -> None: ...


class To:
    """A router that sends all one way."""

    def __init__(self, route: Route) -> None:
        self._route = route

    def route(self, id: str, key: str | None) -> Route:
        return self._route


@pytest.fixture(scope="module")
def served(digits: Path) -> Served:
    return open_served(digits, ServeSettings(bundles=(str(digits),), threads=1), "digits")


@asynccontextmanager
async def tried(
    served: Served, route: Route, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Service, Slow, Noted]]:
    """A service with a candidate that answers when its gate is opened."""
    slow, log = Slow(served.runners[1][0]), Noted()
    models = [served, dataclasses.replace(served, runners={1: (slow,)}, largest=1, steps=(0, 1))]
    monkeypatch.setattr(services, "open_served", lambda *_: models.pop(0))
    settings = ServeSettings(bundles=(str(served.directory),), queue=2)
    decoding = Decoding(1, 10**6, asyncio.get_running_loop())
    service = Service("digits", served.directory, settings, decoding, log=log, router=To(route))
    await service.open()
    await service.begin(Path("candidate"), served.candidate.artifact.id)
    slow.gate.clear()
    try:
        yield service, slow, log
    finally:
        slow.gate.set()
        await service.close()
        decoding.close()


def test_a_canary_that_hangs_leaves_time_for_the_stable_model(
    served: Served, pictures: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "CANARY_PART", 0.03)

    async def main() -> list[tuple[str, str | None]]:
        async with tried(served, Route("canary", False), monkeypatch) as (service, _, log):
            await service.classify(pictures[:1], timeout=20)
            return log.rows

    assert asyncio.run(main()) == [("canary", "late"), ("stable", None)]


def test_a_shadow_is_not_charged_with_what_there_was_no_room_for(
    served: Served, pictures: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with tried(served, Route("stable", True), monkeypatch) as (service, slow, log):
            for picture in pictures[:6]:
                await service.classify([picture])
            await until(lambda: service.shadows_dropped == 4)
            slow.gate.set()
            await until(lambda: len(log.rows) == 8)
            assert sorted(log.rows) == [("shadow", None)] * 2 + [("stable", None)] * 6

    asyncio.run(main())


def test_a_reload_tells_the_store_which_model_answers(
    digits: Path, exported: dict[str, Candidate], tmp_path: Path
) -> None:
    place = tmp_path / "digits"
    shutil.copytree(digits, place)
    settings = ServeSettings(bundles=(str(place),), state=tmp_path / "state")

    async def main() -> None:
        deployment = Deployment(settings, Keys())
        register(deployment.store, deployment.places)
        await deployment.open()
        bundle.write(exported["openvino"], None, place)
        (served,) = await deployment.reload()
        engine = tables.engine(deployment.store)
        with engine.connect() as connection:
            assert record.stable(connection, None)[2] == served.candidate.artifact.id != load_artifact(digits).id
        engine.dispose()
        await deployment.close()

    asyncio.run(main())


def test_a_candidate_that_is_not_what_was_named_is_not_opened(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with tried(served, Route("canary", False), monkeypatch) as (service, _, _log):
            monkeypatch.setattr(services, "open_served", lambda *_: served)
            for opening in (service.begin(served.directory, "c" * 64), service.open("c" * 64)):
                with pytest.raises(ArtifactError, match="another model"):
                    await opening

    asyncio.run(main())
