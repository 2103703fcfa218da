"""What a server bears: overload, killed stores, its own end, and how it begins.

    python benchmarks/serve_trials.py overload --images photos   # five times its capacity for 60 s
    python benchmarks/serve_trials.py stores --images photos     # Redis and PostgreSQL killed and started again
    python benchmarks/serve_trials.py stops --images photos      # SIGTERM, SIGHUP, SIGKILL of one of two workers
    python benchmarks/serve_trials.py cold --images photos       # seconds to the first answer, memory, no PyTorch

Requests come from ``torchstone load``'s client: an open loop, in which a request's latency counts from the moment it
was due. Where there are two cores or more, the client has the last one for itself and the server the others (``cold``
has all of them). What is served is by default what ``served_bundle.py`` makes; every request carries an image that no
cache knows, but for the trial of the cache.
"""

from __future__ import annotations

import argparse
import functools
import http.client
import math
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conditions import conditions
from printing import printed, written
from served import Server, Watch, has_torch, memory, serving, stores, wait_for
from torchstone.core.errors import UserError
from torchstone.judge import tail
from torchstone.serve import load as loads
from torchstone.serve.load import Load, Session, Target
from torchstone.stages.load import LATE_MS, WORDS, images_of

MAKE = Path(__file__).parent / "served_bundle.py"
QUIET = 0.5
"""Share of the capacity that is offered where a server has time."""
STEP = 4.0
"""Seconds at each rate while the capacity is looked for."""
STEPS = 6
KEPT = 0.97
"""Of what is offered, the share that has to be answered for a rate to be within the capacity."""
WINDOW = 0.1
ENOUGH = 100
"""Requests of a window from which on it has a p99."""
STEADY = 5
"""Windows in a row that have to be as before for a server to have recovered."""
BARS = {"goodput": 0.9, "recovery": 1.0, "cold": 2.0, "memory": 250.0}

Told = Callable[[float], None]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What is served, and what it is asked."""

    bundle: Path
    images: list[bytes]
    seconds: float
    runs: Path

    @property
    def state(self) -> Path:
        """What the servers keep."""
        return self.runs / "state"

    def ask(
        self, server: Server, due: NDArray[np.float64], tell: Told = lambda _: None, *, unique: bool = True
    ) -> Session:  # fmt: skip
        load = Load(target=Target.of(server.url), due=due, bodies=self.images, unique=unique, connections=512)
        address, _, _ = loads.ask_once(load)
        return loads.run(load, address, tell, lambda: False)

    def capacity(self, server: Server) -> float:
        """Answers a second at most: rates are doubled until not all are kept, then halved in between; what counts is
        what was answered, at whichever rate."""
        best, low, high = 0.0, 0.0, math.inf
        rate = 20.0
        for _ in range(4 * STEPS):
            due = loads.arrivals(rate, STEP, seed=round(rate))
            offered = len(due) / STEP  # at a low rate, chance makes it another one
            answered = good(self.ask(server, due), STEP)
            best = max(best, answered)
            print(f"  {offered:8.1f} a second offered, {answered:8.1f} answered", flush=True)
            low, high = (rate, high) if answered >= KEPT * offered else (low, rate)
            if high < 1.06 * low:
                break
            rate = 2 * rate if math.isinf(high) else (low + high) / 2
        return best


def good(session: Session, seconds: float) -> float:
    """Answers 200 a second."""
    return float((session.status == http.client.OK).sum()) / max(seconds, session.seconds)


def within(session: Session, begin: float, end: float) -> NDArray[np.bool_]:
    """The requests that were due in this time."""
    return (session.due >= begin) & (session.due < end)


def named(statuses: NDArray[np.int16]) -> dict[str, int]:
    return {WORDS.get(code, str(code)): count for code, count in sorted(Counter(statuses.tolist()).items())}


def told(statuses: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {count:,}" for name, count in statuses.items())


def ms(latencies: NDArray[np.float64], share: float) -> str:
    """A quantile of those that were answered."""
    answered = np.sort(1e3 * latencies[np.isfinite(latencies)])
    return f"{tail.quantile(answered, share):,.1f}" if len(answered) else "—"


def late(session: Session) -> float:
    """The p99 of the client's own lateness, in ms."""
    return tail.quantile(np.sort(1e3 * session.lateness), tail.SHARE)


def bar(met: bool) -> str:
    return "met" if met else "missed"


def schedule(*phases: tuple[float, float]) -> tuple[NDArray[np.float64], list[float]]:
    """Moments at these (rate, seconds) one after the other, and when each begins and the last ends."""
    edges = [0.0]
    parts = []
    for number, (rate, seconds) in enumerate(phases):
        parts.append(edges[-1] + loads.arrivals(rate, seconds, seed=number))
        edges.append(edges[-1] + seconds)
    return np.concatenate(parts), edges


def overload(trial: Trial, cores: Sequence[int]) -> dict[str, Any]:
    """Five times the capacity; before and after it half of it, which says what is normal."""
    arguments = (trial.bundle, "--no-log", "--cache", "none", "--state", trial.state)
    with serving(*arguments, cores=cores) as server:
        print("looking for the capacity")
        peak = trial.capacity(server)
        quiet = max(10.0, trial.seconds / 4)
        due, (_, begin, end, last) = schedule((QUIET * peak, quiet), (5 * peak, trial.seconds), (QUIET * peak, quiet))
        watch = Watch(server)
        before = server.workers
        session = trial.ask(server, due, watch)
        same = server.workers == before
    during = within(session, begin, end)
    answered = (session.status == http.client.OK) & (session.done >= begin) & (session.done < end)
    goodput = float(answered.sum()) / (end - begin)
    normal = usual(session, 1.0, begin)
    recovery = recovered(session, end, last, normal)
    statuses = named(session.status)
    only = set(statuses) <= {"200", "429", "504"}
    used = [(moment, sum(sizes)) for moment, sizes in watch.samples if sizes]
    first, final = _level(used, begin, begin + 10), _level(used, end - 10, end)
    phases = (("before, half", 0.0, begin), ("five times", begin, end), ("after, half", end, last))
    rows = []
    for name, start, stop in phases:
        chosen = within(session, start, stop)
        rows.append(
            [
                name, f"{chosen.sum() / (stop - start):,.0f}", told(named(session.status[chosen])),
                ms(session.latencies[chosen], 0.5), ms(session.latencies[chosen], 0.99),
                f"{_level(used, start, stop):.0f}",
            ]
        )  # fmt: skip
    title = f"{trial.bundle}, capacity {peak:,.0f} answers a second"
    printed(title, ("load", "a second", "answers", "median ms", "p99 ms", "MB"), rows)
    print(
        f"\ngoodput under load {goodput:,.0f} a second, {100 * goodput / peak:.0f} % of the peak "
        f"(bar 90 %: {bar(goodput >= BARS['goodput'] * peak)})"
        f"\nnothing but 200, 429 and 504: {bar(only)}; the workers are the same: {bar(same)}"
        f"\nas before after {recovery:.1f} s (bar 1 s: {bar(recovery <= BARS['recovery'])})"
        f"\nmemory of the workers: {first:.0f} MB in the first 10 s of the load, {final:.0f} MB in its last"
    )
    void = _void(session)
    return {
        "capacity": peak, "offered": float(during.sum()) / (end - begin), "goodput": goodput, "answers": statuses,
        "same_workers": same, "recovery_s": recovery if math.isfinite(recovery) else None, "first_mb": first,
        "normal_window_ms": [1e3 * one if math.isfinite(one) else None for one in normal],
        "last_mb": final, "memory": used, "client_late_p99_ms": late(session), "void": void,
    }  # fmt: skip


def of_window(session: Session, edge: float) -> tuple[float, float]:
    """Median and p99 of the requests that were due in one window, in seconds: infinite where that many have no answer,
    NaN for a p99 of too few, and for both where nothing was due."""
    latencies = np.sort(session.latencies[within(session, edge, edge + WINDOW)])
    if not len(latencies):
        return math.nan, math.nan
    return tail.quantile(latencies, 0.5), tail.quantile(latencies, tail.SHARE) if len(latencies) >= ENOUGH else math.nan


def usual(session: Session, begin: float, end: float) -> tuple[float, float]:
    """What 99 of 100 windows of a quiet time keep: of their medians, and of their p99 (NaN where none has one)."""
    windows = [of_window(session, edge) for edge in np.arange(begin, end - WINDOW / 2, WINDOW)]
    found = [np.sort([one for one in values if not math.isnan(one)]) for values in zip(*windows, strict=True)]
    median, p99 = (tail.quantile(values, tail.SHARE) if len(values) else math.nan for values in found)
    return median, p99


def recovered(session: Session, end: float, last: float, normal: tuple[float, float]) -> float:
    """Seconds from ``end`` to the end of the first window from which on STEADY windows have answers alone, their median
    within what is ``usual`` of medians, their p99 within what is of p99s; infinite, where there are none."""
    edges = np.arange(end, last - WINDOW / 2, WINDOW)
    fine = []
    for edge in edges:
        asked = within(session, edge, edge + WINDOW)
        answered = bool(asked.any() and np.isfinite(session.latencies[asked]).all())
        fine.append(answered and not any(it > most for it, most in zip(of_window(session, edge), normal, strict=True)))
    for number in range(len(fine) - STEADY + 1):
        if all(fine[number : number + STEADY]):
            return float(edges[number] + WINDOW - end)
    return math.inf


def _level(used: Sequence[tuple[float, float]], begin: float, end: float) -> float:
    """The median of what was seen in this time."""
    found = [size for moment, size in used if begin <= moment < end]
    return statistics.median(found) if found else math.nan


def _void(session: Session) -> str | None:
    """Says, and returns, that the client was late itself."""
    found = late(session)
    print(f"the client was late by {found:.2f} ms (p99), {100 * session.busy / session.seconds:.0f} % of its core")
    if found <= LATE_MS:
        return None
    print("the client could not keep up: latencies are partly its own")
    return f"the client was late by {found:.2f} ms (p99)"


def of_stores(trial: Trial, cores: Sequence[int]) -> dict[str, Any]:
    """Redis and PostgreSQL killed at a third of the time, and started again at two thirds. Images repeat, so that the
    cache has something to answer."""
    third = trial.seconds / 3
    with stores() as (redis, postgres):

        def kill() -> None:
            redis.kill()
            postgres.kill()

        def start() -> None:
            redis.start()
            postgres.start()

        arguments = (trial.bundle, "--workers", "2", "--cache", redis.url, "--store", postgres.url)
        with serving(*arguments, "--state", trial.state, cores=cores) as server:
            rate = QUIET * trial.capacity(server)
            before = logged(server)
            due, _ = schedule((rate, trial.seconds))
            watch = Watch(server, {third: kill, 2 * third: start})
            session = trial.ask(server, due, watch, unique=False)
            watch.end()
            counts = logged(server)
            cache = {name: server.counted(f"torchstone_cache_{name}_total") for name in ("hits", "misses", "errors")}
            found = stored(postgres.url)
    back = watch.done[2 * third]
    rows = []
    for name, begin, end in (
        ("before", 0, third),
        ("killed", third, 2 * third),
        ("started again", 2 * third, math.inf),
    ):
        chosen = within(session, begin, end)
        latencies = session.latencies[chosen]
        rows.append(
            [name, told(named(session.status[chosen])), ms(latencies, 0.5), ms(latencies, 0.99), ms(latencies, 1)]
        )
    printed(
        f"{rate:,.0f} requests a second, two workers", ("stores", "answers", "median ms", "p99 ms", "most ms"), rows
    )
    failed = int((session.status != http.client.OK).sum())
    written_, lost = counts[WRITTEN], counts[LOST]
    answers = len(session.status) + 1  # with the one that asked whether anybody answers
    noted = written_ + lost - before[WRITTEN] - before[LOST]
    print(
        f"\nfailed predictions: {failed} (bar 0: {bar(failed == 0)}); both were back after {back - 2 * third:.1f} s"
        f"\nlog rows of this time: {answers:,} answers, {noted:,.0f} counted; lost {lost:,.0f}, counted as written "
        f"{written_:,.0f}, found in PostgreSQL {found:,} ({bar(found == written_ and noted == answers)})"
        f"\nthe cache: {cache['hits']:,.0f} hits, {cache['misses']:,.0f} misses, {cache['errors']:,.0f} errors"
    )
    return {
        "rate": rate, "failed": failed, "answers": answers, "logged": noted, "lost": lost, "written": written_,
        "found": found, "cache": cache, "back_after_s": back - 2 * third, "void": _void(session),
    }  # fmt: skip


def logged(server: Server) -> dict[str, float]:
    """What has become of the log's rows, when none is waiting any more."""
    time.sleep(CARRIED)
    wait_for(lambda: server.counted(WAITING) == 0, "the log to be written")
    return {name: server.counted(name) for name in (WRITTEN, LOST)}


CARRIED = 2.5
"""Seconds after which the numbers at ``/metrics`` are those of this moment: a server carries them over once a second,
and gathers rows for a moment."""
WRITTEN, LOST = "torchstone_log_rows_written_total", "torchstone_log_rows_lost_total"
WAITING = "torchstone_log_rows_waiting"


def stored(url: str) -> int:
    """Rows of the log."""
    import sqlalchemy as sa

    from torchstone.serve.store import tables

    engine = tables.engine(url)
    with engine.connect() as connection:
        count = connection.execute(sa.select(sa.func.count()).select_from(tables.predictions)).scalar_one()
    engine.dispose()
    return count


def stops(trial: Trial, cores: Sequence[int]) -> dict[str, Any]:
    """What is lost when a server is stopped, when its bundle is exchanged, and when one of two workers is killed."""
    place = trial.runs / "exchanged"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(trial.bundle, place)
    arguments = (place, "--workers", "2", "--no-log", "--cache", "none", "--state", trial.state)
    with serving(*arguments, cores=cores) as server:
        rate = QUIET * trial.capacity(server)
    found: dict[str, Any] = {"rate": rate}
    middle = trial.seconds / 2
    rows = []
    for name in ("SIGTERM", "SIGHUP, five times", "SIGKILL of one worker"):
        with serving(*arguments, cores=cores) as server:
            victim = server.workers[0]
            plan: dict[float, Callable[[], object]] = {
                "SIGTERM": {middle: server.stop},
                "SIGHUP, five times": {
                    middle / 5 * (1 + number): lambda: server.process.send_signal(signal.SIGHUP) for number in range(5)
                },
                "SIGKILL of one worker": {middle: functools.partial(os.kill, victim, signal.SIGKILL)},
            }[name]
            watch = Watch(server, plan)  # pyright: ignore[reportArgumentType]
            session = trial.ask(server, schedule((rate, trial.seconds))[0], watch)
            watch.end()
            replaced = [] if name == "SIGTERM" else server.workers
            said = [line.strip() for line in server.lines if "ended with" in line or "reload" in line]
        gone = session.status == loads.REFUSED if name == "SIGTERM" else np.zeros(len(session.status), bool)
        failed = int(((session.status != http.client.OK) & ~gone).sum())
        statuses = named(session.status)
        first = f"{session.due[gone][0] - middle:.1f} s after it" if gone.any() else "—"
        rows.append([name, told(statuses), str(failed), first, ms(session.latencies, 0.99), ms(session.latencies, 1)])
        found[name] = {
            "answers": statuses, "failed": failed, "workers": replaced, "victim": victim, "said": said,
            "client_late_p99_ms": late(session),
        }  # fmt: skip
    columns = ("under load", "answers", "failed", "none is taken from", "p99 ms", "most ms")
    printed(f"{rate:,.0f} requests a second, two workers", columns, rows)
    print(
        "\nfailed: accepted and not answered with 200. After SIGTERM the port is closed: who comes then is not accepted"
        "\n(bars: 0, 0, and what the killed worker held)"
    )
    return found


def cold(trial: Trial, cores: Sequence[int]) -> dict[str, Any]:
    """From the command to the first answer, on all cores, with the files in the system's cache; then the worker's
    memory."""
    seconds, resident, most, torch = [], [], [], False
    for _ in range(ROUNDS):
        with serving(trial.bundle, "--cache", "none", "--state", trial.state, cores=cores) as server:
            load = Load(target=Target.of(server.url), due=np.empty(0), bodies=trial.images)
            _, status, _ = loads.ask_once(load)
            seconds.append(time.monotonic() - server.began)
            if status != http.client.OK:
                raise SystemExit(f"error: the first image is answered with {status}")
            trial.ask(server, loads.arrivals(20.0, 10.0, seed=0))
            resident += memory(server.workers)
            most += memory(server.workers, "VmHWM")
            torch = torch or any(has_torch(pid) for pid in (server.process.pid, *server.workers))
    begin, used = statistics.median(seconds), max(resident)
    printed(
        f"{trial.bundle}, {ROUNDS} starts",
        ("what", "median", "from", "to", "bar"),
        [
            ["command to first answer, s", *_three(seconds), f"2: {bar(begin <= BARS['cold'])}"],
            ["a worker's memory after 200 answers, MB", *_three(resident), f"250: {bar(used <= BARS['memory'])}"],
            ["its memory at most, MB", *_three(most), ""],
        ],
    )
    print(f"\nPyTorch is in no process: {bar(not torch)}")
    return {"seconds": seconds, "resident_mb": resident, "most_mb": most, "torch": torch}


ROUNDS = 5


def _three(values: Sequence[float]) -> tuple[str, str, str]:
    return f"{statistics.median(values):,.2f}", f"{min(values):,.2f}", f"{max(values):,.2f}"


TRIALS: dict[str, Callable[[Trial, Sequence[int]], dict[str, Any]]] = {
    "overload": overload, "stores": of_stores, "stops": stops, "cold": cold,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trial", choices=TRIALS)
    parser.add_argument("--bundle", type=Path, help=f"by default what {MAKE.name} makes, which is made where needed")
    parser.add_argument("--images", help="folder of photos; by default pieces of scikit-learn's two photos")
    parser.add_argument("--seconds", type=float, default=60.0, help="of the load")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder in which what is made is kept")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    place = given.bundle or given.runs / "serve-trials" / "bundle"
    print(conditions())
    try:
        if not place.exists():
            command = [sys.executable, MAKE, *([given.images] if given.images else []), "--runs", given.runs]
            subprocess.run([*map(str, command), "--out", str(place)], check=True)
        images = images_of(given.images or str(given.runs / "serve-trials" / "photos"), 0)
        trial = Trial(bundle=place, images=images, seconds=given.seconds, runs=given.runs / "serve-trials")
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) > 1:
            os.sched_setaffinity(0, cores[-1:])
        # Who waits for a start needs no core.
        found = TRIALS[given.trial](trial, cores if given.trial == "cold" else cores[:-1])
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
    written(given.json or Path(f"serve_{given.trial}.json"), trial=given.trial, bars=BARS, **found)


if __name__ == "__main__":
    main()
