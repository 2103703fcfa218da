"""More than can be answered, and stores that are killed meanwhile: real servers under an open loop of requests."""

from __future__ import annotations

import asyncio
import gc
import re
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from daemons import Postgres
from live import Live, Load, serving, wait_for
from torchstone.serve import load as loads
from torchstone.serve.app import Application
from torchstone.serve.deployment import Deployment
from torchstone.serve.keys import Keys
from torchstone.serve.load import Session, Target
from torchstone.serve.settings import ServeSettings
from torchstone.serve.store import tables


@pytest.fixture(scope="module")
def narrow(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server with little room, so that it is full on any machine."""
    state = tmp_path_factory.mktemp("narrow")
    with serving(digits, "--queue", "2", "--cache", "none", "--no-log", "--state", state) as live:
        yield live


def offered(live: Live, rate: float, seconds: float, images: list[bytes], **more: Any) -> Session:
    due = loads.arrivals(rate, seconds, seed=0)
    load = loads.Load(
        target=Target.of(f"http://{live.host}:{live.port}"), due=due, bodies=images, timeout=120.0, **more
    )
    return loads.run(load, live.host, lambda _: None, lambda: False)


def resident(pid: int) -> float:
    """10⁶ bytes of memory."""
    (kilobytes,) = re.findall(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(kilobytes) * 1024 / 1e6


def test_more_than_can_be_answered_is_refused_and_nothing_else(narrow: Live, pictures: list[bytes]) -> None:
    """200 and 429 alone; the worker is the same; a further flood takes no more memory than those before it; then all is
    as before."""
    large = [picture + bytes(100_000) for picture in pictures]  # bodies that weigh something
    (worker,) = narrow.workers
    used = [resident(worker)]
    for _ in range(4):  # on a busy machine one flood may be gentler than the next
        found = offered(narrow, 3000.0, 1.0, large)
        counts = Counter(found.status.tolist())
        assert set(counts) == {200, 429}
        used.append(resident(worker))
    assert narrow.workers == [worker]
    assert used[-1] < max(used[:-1]) + 16 < used[0] + 96
    assert narrow.ask("/v1/classify", pictures[0]).status == 200


def test_no_refused_request_waits_for_a_collection_of_garbage(digits: Path, pictures: list[bytes]) -> None:
    """What came is freed with the answer, and not when Python looks for cycles, which it does ever more seldom: a flood
    of refused photos would take hundreds of megabytes until then."""

    async def asked(application: Application, path: str, body: bytes, query: bytes = b"") -> int:
        """The status of one request, without a socket."""
        scope = {"type": "http", "method": "POST", "path": path, "query_string": query, "headers": [], "root_path": ""}
        statuses = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            statuses.append(message.get("status"))

        await application(scope, receive, send)
        return statuses[0]

    async def main() -> None:
        settings = ServeSettings(bundles=(str(digits),), cache="none", no_log=True, queue=4)
        deployment = Deployment(settings, Keys())
        await deployment.open()
        application = Application(deployment)
        junk = {
            404: ("/nowhere", b"x" * 1000, b""),
            422: ("/v1/classify", b"x" * 1000, b""),
            400: ("/v1/classify", pictures[0], b"top=0"),
            504: ("/v1/classify", pictures[0], b"timeout=0.000001"),
        }
        for status, asking in junk.items():
            assert await asked(application, *asking) == status  # what is made once is made
        for status, asking in junk.items():
            await asyncio.sleep(0.1)
            gc.collect()
            gc.disable()
            try:
                assert {await asked(application, *asking) for _ in range(200)} <= {status}
                await asyncio.sleep(0.1)
                assert gc.collect() < 150, status  # not one each; what goes on beside leaves some
            finally:
                gc.enable()
        await deployment.close()

    asyncio.run(main())


@pytest.mark.slow
def test_postgresql_killed_and_started_again_under_requests(
    postgres: Postgres,
    digits: Path,
    pictures: list[bytes],
    tmp_path: Path,
) -> None:
    """No request notices. Each answer is a row in the store, once, or counted as lost."""

    def counted(live: Live, name: str) -> int:
        text = live.ask("/metrics").content.decode()
        return sum(int(float(line.split()[-1])) for line in text.splitlines() if line.startswith(name))

    written, lost = "torchstone_log_rows_written_total", "torchstone_log_rows_lost_total"
    with serving(digits, "--workers", "2", "--state", tmp_path, "--store", postgres.url) as live:
        with Load(live, pictures) as load:
            assert wait_for(lambda: counted(live, written) > 100)
            postgres.kill()
            before = len(load.statuses)
            assert wait_for(lambda: len(load.statuses) > before + 200)
            postgres.begin()
            written_before = counted(live, written)
            assert wait_for(lambda: counted(live, written) > written_before + 300)
        assert load.failures == []
        assert set(load.statuses) == {200}
        assert wait_for(lambda: counted(live, written) + counted(live, lost) == len(load.statuses))
        engine = tables.engine(postgres.url)
        with engine.connect() as connection:
            rows = connection.execute(sa.select(sa.func.count()).select_from(tables.predictions)).scalar_one()
        engine.dispose()
        assert rows == counted(live, written)
        assert live.stop(signal.SIGTERM) == 0
