"""The open-loop client, against real servers: torchstone's, and small ones in which something is planted."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from command_line import torchstone
from live import Live, ask, serving
from torchstone.core import files
from torchstone.core.errors import ConfigError, DataError
from torchstone.serve import load as loads
from torchstone.serve.load import Load, Session, Target
from torchstone.stages import load as stage
from torchstone.stages.load import Wanted

KEY = "a-key-that-opens-the-server"


class Planted:
    """A server of one thread that answers each request with what ``answer`` says of its number: a status, or None to
    hang up. It may sleep, which holds up everybody."""

    def __init__(self, answer: Callable[[int], int | None], times: int = 1) -> None:
        self.answer, self.times = answer, times
        self.bodies: list[bytes] = []
        self.port = 0
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                size = next(int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
                self.bodies.append(await reader.readexactly(size))
                status = self.answer(len(self.bodies) - 1)
                if status is None:
                    break
                writer.write(b"HTTP/1.1 %d So\r\ncontent-length: 2\r\n\r\n{}" % status * self.times)
        writer.close()

    def __enter__(self) -> Planted:
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)


def always(_: int) -> int:
    return 200


def session(
    port: int, due: np.ndarray, bodies: list[bytes] | None = None, tell: Callable[[float], Any] = float,
    **more: Any,
) -> Session:  # fmt: skip
    asked = Load(target=Target.of(f"http://127.0.0.1:{port}"), due=due, bodies=bodies or [b"an image"], **more)
    return loads.run(asked, "127.0.0.1", tell, lambda: False)


def wanted(**more: Any) -> Wanted:
    return Wanted(**{"url": "http://127.0.0.1:1", "rate": 100.0, "seconds": 2.0, "images": "digits", **more})


def test_arrivals_are_a_poisson_process_that_a_seed_repeats() -> None:
    moments = loads.arrivals(200.0, 100.0, seed=1)
    assert np.array_equal(moments, loads.arrivals(200.0, 100.0, seed=1))
    assert not np.array_equal(moments[:100], loads.arrivals(200.0, 100.0, seed=2)[:100])
    assert (np.diff(moments) > 0).all()
    assert moments[0] >= 0
    assert moments[-1] < 100
    assert abs(len(moments) - 20_000) < 5 * 20_000**0.5
    gaps = np.diff(moments)
    assert abs(gaps.std() / gaps.mean() - 1) < 0.05  # as exponential gaps have it, regular ones do not
    counts = np.histogram(moments, 1000)[0]
    assert 0.8 < counts.var() / counts.mean() < 1.2


def test_a_stall_is_met_by_everybody_who_came_meanwhile() -> None:
    """The server stands still for 0.3 s. One client that waits for each answer meets that once; of users who come
    when they like, each who came in the meantime."""
    stall, moments = 0.3, np.arange(0.0, 2.0, 0.01)

    def answer(number: int) -> int:
        if number == 100:
            time.sleep(stall)
        return 200

    with Planted(answer) as server:
        found = session(server.port, moments)
        assert Counter(found.status.tolist()) == {200: 200}
        begun = float(found.done[100]) - stall
        met = found.latencies[(found.due > begun) & (found.due < begun + stall / 2)]
        assert (met > stall / 2 - 0.01).all()
        assert len(met) >= 10
        assert float(np.quantile(found.latencies, 0.95)) > stall / 3

        server.bodies.clear()
        waits = []
        with contextlib.closing(HTTPConnection("127.0.0.1", server.port, timeout=30)) as kept:
            for _ in moments:
                before = time.perf_counter()
                assert ask(kept, "/v1/classify", b"an image").status == 200
                waits.append(time.perf_counter() - before)
        assert max(waits) >= stall
        assert sum(wait > stall / 2 for wait in waits) < len(met) / 2  # so its p99 says nothing of the stall


def test_what_is_not_answered_is_told_apart() -> None:
    """429 and 504 as they are, connections that end without an answer, answers that do not come."""
    late = threading.Event()

    def answer(number: int) -> int | None:
        if number == 79:
            late.wait(2)  # the last two get no answer in time
        return {0: 429, 1: 504, 2: None}.get(number % 4, 200)

    with Planted(answer) as server:
        found = session(server.port, np.arange(0.0, 0.8, 0.01), connections=4, timeout=1.0)
        late.set()
    counts = Counter(found.status.tolist())
    assert sum(counts.values()) == 80
    assert counts[429] == 20
    assert counts[504] == 20
    assert counts[loads.BROKEN] == 20
    assert counts[200] + counts[loads.SILENT] == 20
    assert counts[loads.SILENT] >= 1
    assert np.isfinite(found.latencies).sum() == counts[200]
    assert found.opened >= 20  # each that hung up is replaced


def test_an_answer_to_nothing_is_no_answer() -> None:
    """A server that says everything twice is left alone after the first time."""
    with Planted(always, times=2) as server:
        found = session(server.port, np.arange(0.0, 0.5, 0.01), connections=1)
    assert Counter(found.status.tolist()) == {200: 50}
    assert found.opened > 10


def test_a_server_that_has_gone_refuses_each_request() -> None:
    with Planted(always) as server:
        port = server.port
    found = session(port, np.arange(0.0, 0.2, 0.01), connections=2)
    assert set(found.status.tolist()) == {loads.REFUSED}
    assert np.isinf(found.latencies).all()


def test_few_connections_make_requests_wait_which_counts() -> None:
    def answer(number: int) -> int:
        time.sleep(0.02)
        return 200

    with Planted(answer) as server:
        found = session(server.port, np.zeros(10), connections=2)
    assert found.opened == 2
    assert found.waited == 8
    assert found.latencies.max() >= 0.2


def test_each_request_has_an_image_and_unique_ones_are_alike_but_for_their_end() -> None:
    images = [b"one", b"another", b"third" * 1000]
    with Planted(always) as server:
        session(server.port, np.zeros(60), images)
        assert set(server.bodies) == set(images)
        server.bodies.clear()
        session(server.port, np.zeros(60), images, unique=True)
        assert len(set(server.bodies)) == 60
        assert {body[:-16] for body in server.bodies} == set(images)


def test_a_client_that_cannot_keep_up_says_so() -> None:
    """It stands still again and again. The session is void: these figures would be its own."""
    with Planted(always) as server:
        found = session(server.port, loads.arrivals(500.0, 1.0, seed=0), tell=lambda _: time.sleep(0.05))
    result = stage.measured(found, wanted(rate=500.0, seconds=1.0, max_p99_ms=1000.0), 1)
    assert result.late_ms[1] > stage.LATE_MS
    assert result.outcome == "void"
    assert result.void
    assert "the client itself was late" in result.void


def made(latencies: np.ndarray, late: float = 0.0, status: int = 200) -> Session:
    """A session with these latencies, in seconds."""
    due = np.arange(len(latencies)) / 100
    return Session(
        due=due, sent=due + late, done=due + latencies, status=np.full(len(due), status, np.int16), cached=0, waited=0,
        opened=1, busy=0.0, seconds=float(len(due)) / 100, ended=float(len(due)) / 100, interrupted=False,
    )  # fmt: skip


def test_the_p99_is_proven_refuted_or_left_open() -> None:
    few, many = np.full(300, 0.010), np.full(3000, 0.010)
    assert stage.measured(made(many), wanted(max_p99_ms=20.0), 1).outcome == "pass"
    assert stage.measured(made(many), wanted(max_p99_ms=5.0), 1).outcome == "fail"
    open_still = stage.measured(made(few), wanted(max_p99_ms=20.0), 1)
    assert (open_still.outcome, open_still.needed) == ("undecided", 459)
    slow = many.copy()
    slow[:30] = 0.1
    at_the_edge = stage.measured(made(slow), wanted(max_p99_ms=20.0), 1)
    assert (at_the_edge.outcome, at_the_edge.needed, at_the_edge.slower) == ("undecided", None, 30)
    assert stage.measured(made(many, status=429), wanted(max_p99_ms=20.0), 1).outcome == "fail"
    p99 = next(one for one in stage.measured(made(few), wanted(), 1).every if one.share == 0.99)
    assert p99.ms == pytest.approx(10.0)
    assert p99.at_most_ms is None
    p99 = next(one for one in stage.measured(made(many), wanted(), 1).every if one.share == 0.99)
    assert p99.at_most_ms == pytest.approx(10.0)


def test_an_interruption_drops_nothing_that_was_on_its_way() -> None:
    """Of 3,000 requests 900 have no answer when it is ended. Those that had waited for longer than the limit are
    slower; of those that had not, nothing is known, so that they prove nothing."""
    answered = made(np.full(3000, 0.010))
    status = answered.status.copy()
    status[::10] = status[1::10] = status[2::10] = loads.UNFINISHED
    cut = dataclasses.replace(answered, status=status, interrupted=True, ended=answered.seconds + 1.0)
    found = stage.measured(cut, wanted(max_p99_ms=20.0), 1)
    assert (found.outcome, found.slower, found.counts) == ("fail", 900, {"200": 2100, "still on its way": 900})
    assert found.requests == 3000
    assert next(one.ms for one in found.every if one.share == 0.99) == np.inf
    found = stage.measured(cut, wanted(max_p99_ms=60_000.0), 1)
    assert (found.outcome, found.slower, found.needed) == ("undecided", 0, None)


def test_what_is_on_its_way_at_an_interruption_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loads, "GRACE", 0.1)
    hanging, go = threading.Event(), threading.Event()

    def answer(number: int) -> int:
        if number == 20:
            hanging.set()
            go.wait(30)
        return 200

    with Planted(answer) as server:
        asked = Load(
            target=Target.of(f"http://127.0.0.1:{server.port}"), due=np.arange(0.0, 60.0, 0.01), bodies=[b"an image"]
        )
        found = loads.run(asked, "127.0.0.1", lambda _: None, hanging.is_set)
        go.set()
    counts = Counter(found.status.tolist())
    assert found.interrupted
    assert counts[loads.UNFINISHED] >= 1
    assert counts[200] + counts[loads.UNFINISHED] == len(found.due)
    late = found.at_least[found.status == loads.UNFINISHED]
    assert (late > 0.1 - 2 * loads.SWEEP).all()
    assert np.isfinite(late).all()


def test_images_come_from_folders_of_any_depth_and_from_whatever_is_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "MAX_IMAGES", 50)
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "one.jpg").write_bytes(b"1")
    (tmp_path / "a" / "b" / "two.PNG").write_bytes(b"2")
    (tmp_path / "notes.txt").write_text("none")
    assert set(stage.images_of(str(tmp_path), 0)) == {b"1", b"2"}
    digits = stage.images_of("digits", 0)
    assert len(digits) == 50
    assert digits == stage.images_of("digits", 0)
    assert digits != stage.images_of("digits", 1)
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError):
        stage.images_of(str(tmp_path / "none"), 0)


@pytest.mark.parametrize("url", ["ftp://here", "here:8080", "http://", "http://a b", "http://here:port", "http://ä"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="no"):
        Target.of(url)


def test_an_address_says_where_and_which_path() -> None:
    assert Target.of("http://here") == Target(host="here", port=80, path="/v1/classify", secure=False)
    assert Target.of("https://[::1]:8/a/b?top=2").path == "/a/b?top=2"
    assert Target.of("https://[::1]:8/").named == "[::1]:8"
    with pytest.raises(ConfigError, match="key does not go into the URL") as caught:
        Target.of("http://me:secret@here")
    assert "secret" not in str(caught.value)


def test_bounds_on_what_may_be_asked() -> None:
    for wrong in ({"rate": 0.0}, {"rate": 20_001.0}, {"seconds": 30_000.0}, {"rate": 20_000.0, "seconds": 3600.0}):
        with pytest.raises(ConfigError):
            wanted(**wrong)


@pytest.fixture(scope="module")
def guarded(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server that takes a key."""
    state = tmp_path_factory.mktemp("guarded")
    with serving(digits, "--state", state, env={"TORCHSTONE_API_KEYS": KEY}) as live:
        yield live


def test_the_command_line_against_a_server(
    guarded: Live, pictures: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Key, table and file; exit code 3 where too few requests were made to prove anything."""
    for number, picture in enumerate(pictures):
        (tmp_path / f"{number}.png").write_bytes(picture)
    url = f"http://{guarded.host}:{guarded.port}"
    asked = ("load", url, "--rate", "100", "--for", "1s", "--images", tmp_path)
    refused = torchstone(*asked)
    assert (refused.returncode, "answers 401" in refused.stderr) == (2, True)
    (tmp_path / "keys").write_text(f"# ours\n{KEY}\n")
    out = tmp_path / "load.json"
    done = torchstone(*asked, "--api-keys", tmp_path / "keys", "--max-p99-ms", "5000", "--out", out)
    found = files.read_json(out)
    assert done.returncode == found["exit_code"] == 3, done.stderr
    assert found["counts"] == {"200": found["requests"]}
    assert found["from_cache"] > 0
    assert found["latency_ms"]["every"] == found["latency_ms"]["answered"]
    if not found["void"]:
        assert (found["outcome"], found["requests_needed"]) == ("undecided", 459)
        assert "cannot tell" in done.stdout
    assert KEY not in done.stdout + done.stderr + out.read_text()

    monkeypatch.setenv("TORCHSTONE_API_KEYS", KEY)
    done = torchstone(*asked, "--unique", "--json")
    found = json.loads(done.stdout)
    assert found["counts"] == {"200": found["requests"]}
    assert found["from_cache"] == 0


def test_an_address_where_nothing_is_and_a_path_that_is_not(guarded: Live) -> None:
    rest = ("--rate", "10", "--for", "1s", "--images", "digits")
    done = torchstone("load", "http://127.0.0.1:1", *rest)
    assert done.returncode == 2
    assert "nothing answers at 127.0.0.1:1" in done.stderr
    done = torchstone("load", f"http://{guarded.host}:{guarded.port}/nowhere", *rest)
    assert done.returncode == 2
    assert "answers 404" in done.stderr


def test_ctrl_c_gives_the_figures_so_far(guarded: Live, tmp_path: Path, ctrl_c: None) -> None:
    out = tmp_path / "load.json"
    command = [
        sys.executable, "-m", "torchstone", "load", f"http://{guarded.host}:{guarded.port}", "--rate", "50",
        "--for", "1h", "--images", "digits", "--out", str(out), "--json",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "TORCHSTONE_API_KEYS": KEY}
    )
    deadline = time.monotonic() + 60

    def asked() -> float:
        text = guarded.ask("/metrics", x_api_key=KEY).content.decode()
        name = 'torchstone_requests_total{path="/v1/classify",status="200"}'
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))

    before = asked()
    while asked() < before + 30 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate(timeout=60)
    found = json.loads(said)
    assert process.returncode == found["exit_code"] == 130, errors
    assert found["interrupted"]
    assert found["requests"] >= 30
    assert found == files.read_json(out)


class Locust:
    """What the example takes of Locust (which is not installed for the tests), on a server of ours."""

    def __init__(self, live: Live) -> None:
        self.live = live
        self.asked: list[tuple[str, str, int]] = []
        self.failures: list[str] = []

    def post(self, path: str, data: bytes, headers: dict[str, str], catch_response: bool) -> Any:
        return self._asked("POST", path, data, headers)

    def get(self, path: str) -> Any:
        return self._asked("GET", path, None, {})

    def _asked(self, method: str, path: str, data: bytes | None, headers: dict[str, str]) -> Any:
        reply = self.live.ask(path, data, **{name.replace("-", "_"): value for name, value in headers.items()})
        self.asked.append((method, path, reply.status))
        answer = SimpleNamespace(status_code=reply.status, json=lambda: reply.json, failure=self.failures.append)
        return contextlib.nullcontext(answer)


def test_the_locustfile_asks_what_the_server_describes(
    guarded: Live, pictures: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one.png").write_bytes(pictures[0])
    monkeypatch.setenv("TORCHSTONE_IMAGES", str(tmp_path))
    module: Any = ModuleType("locust")
    module.FastHttpUser, module.between = object, lambda *seconds: seconds
    module.task = lambda _: lambda method: method
    monkeypatch.setitem(sys.modules, "locust", module)
    example = runpy.run_path(str(Path(__file__).parents[2] / "examples/load/locustfile.py"))
    described = guarded.ask("/openapi.json").json["paths"]
    for key, status in ((KEY, 200), ("", 401)):
        monkeypatch.setenv("TORCHSTONE_API_KEYS", key)
        user = example["Visitor"]()
        user.client = Locust(guarded)
        user.on_start()
        user.classify()
        user.ready()
        assert user.client.asked == [("POST", "/v1/classify", status), ("GET", "/readyz", 200)]
        assert all(method.lower() in described[path] for method, path, _ in user.client.asked)
        assert len(user.client.failures) == (status != 200)
