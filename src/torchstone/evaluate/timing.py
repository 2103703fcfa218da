"""Paired clocks: two candidates take turns on the same cores, so that what slows the machine slows both.

A *quartet* is four slots in the order ABBA or BAAB (A the candidate, B its rival), drawn at random: within it, a
steady drift of the machine cancels. A *slot* is one untimed call, then calls for at least 50 ms and at least three;
its value is the median. Where it is cheap, each side has many copies of its model in memory and each quartet uses
another one. The quartets of all comparisons are interleaved, and with them the A/A control: the baseline
against a second process of itself, which shows what the clock itself is worth in this session.
"""

from __future__ import annotations

import getpass
import os
import secrets
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from torchstone.core import files, machine, tables
from torchstone.core.console import track
from torchstone.core.errors import ArtifactError
from torchstone.core.run import Run
from torchstone.core.seeding import generator
from torchstone.core.values import Candidate
from torchstone.evaluate.pool import Worker, cores_for, workers

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

Phase = Literal["screening", "judged"]
Order = Literal["ABBA", "BAAB"]

SLOT_MS = 50.0
SLOT_CALLS = 3
COPIES = 16
WARMUP_MS = 300.0
THROUGHPUT_BATCH = 32
THROUGHPUT_ROUNDS = 5
COLUMNS = ("phase", "session", "rival", "quartet", "order", "slot", "side", "batch", "ms", "calls", "at")


class Comparison(NamedTuple):
    """Two candidates whose speed is compared. The same one twice is an A/A control: two processes of it."""

    candidate: Candidate
    rival: Candidate


class Turn(NamedTuple):
    """One quartet of the schedule."""

    quartet: int
    comparison: int
    order: Order


@dataclass(frozen=True, kw_only=True)
class Session:
    """What was measured in one go. ``tables`` has one table for each candidate id on the candidate's side, with the
    columns of ``COLUMNS``; ``header`` the conditions and what the session cost."""

    id: str
    phase: Phase
    candidates: dict[str, Candidate]
    tables: dict[str, pl.DataFrame]
    header: dict[str, Any]


def session(
    comparisons: Sequence[Comparison],
    *,
    control: Candidate | None,
    quartets: int,
    batch: int = 1,
    phase: Phase,
    pixels: NDArray[np.uint8] | Mapping[int, NDArray[np.uint8]],
    throughput: bool = False,
) -> Session:
    """Time all comparisons, interleaved, with ``control`` (the baseline) against itself.

    ``pixels`` are real images, uint8[n, H, W, 3], of the size that all candidates take; or the same images for each
    side that one of them takes. With ``throughput``, each candidate is also timed alone at batch 32, in five alternated
    rounds; those rows have no rival and no order. A second session of the same user on this machine waits for the
    first, or each would time the other. Raises an ArtifactError that names the candidate whose process died, hung, or
    could not open its model.
    """
    asked = [Comparison(*pair) for pair in comparisons] + ([Comparison(control, control)] if control else [])
    pairs = list({(pair.candidate.id, pair.rival.id): pair for pair in asked}.values())
    known = {candidate.id: candidate for pair in pairs for candidate in pair}
    seats = known | {_rival_seat(pair): pair.rival for pair in pairs}
    name = secrets.token_hex(8)
    with files.alone(_lock(), "timing"), tempfile.TemporaryDirectory(prefix="torchstone-") as scratch:
        load, begin = os.getloadavg(), time.monotonic()
        sized = {pixels.shape[1]: pixels} if isinstance(pixels, np.ndarray) else pixels
        paths = {side: Path(scratch) / f"pixels-{side}.npy" for side in sized}
        for side, images in sized.items():
            np.save(paths[side], images, allow_pickle=False)
        places = next(iter(paths.values())) if len(paths) == 1 else paths
        with workers(seats, places, {batch: COPIES} | ({THROUGHPUT_BATCH: 1} if throughput else {})) as opened:
            clock = _Clock(name, phase, opened)
            for seat in track(opened, "timing, warm-up", total=len(opened)):
                clock.slot(seat, batch, 0, ms=WARMUP_MS)
            turns = schedule(name, len(pairs), quartets)
            for turn in track(turns, f"timing, {quartets} quartets a pair", total=len(turns)):
                clock.quartet(pairs[turn.comparison], turn, batch)
            if throughput:
                clock.throughput(list(known))
            end = time.monotonic()
    header = {
        "session": name,
        "quartets": quartets,
        "batch": batch,
        "slot_ms": SLOT_MS,
        "slot_calls": SLOT_CALLS,
        "warmup_ms": WARMUP_MS,
        "cpu": machine.cpu_name(),
        "threads": {key: candidate.options.threads for key, candidate in known.items()},
        "affinity": {key: cores_for(candidate.options.threads) for key, candidate in known.items()},
        "packages": machine.versions(),
        "load_before": load,
        "load_after": os.getloadavg(),
        "opening_seconds": clock.start - begin,
        "measuring_seconds": end - clock.start,
        "computing_seconds": clock.computing,
    }
    return Session(id=name, phase=phase, candidates=known, tables=clock.tables(), header=header)


def _lock() -> Path:
    return Path(tempfile.gettempdir()) / f"torchstone-{getpass.getuser()}" / "clock.lock"


def schedule(session_id: str, comparisons: int, quartets: int) -> list[Turn]:
    """Who is compared when, and in which order: each round has one quartet of every comparison, shuffled. The same
    session id gives the same schedule, so that anyone can see that the orders were drawn before anything was timed."""
    draw = generator("timing", session_id)
    orders: tuple[Order, Order] = ("ABBA", "BAAB")
    return [
        Turn(quartet, int(comparison), orders[draw.integers(2)])
        for quartet in range(quartets)
        for comparison in draw.permutation(comparisons)
    ]


def store(run: Run, session: Session) -> None:
    """Write each candidate's rows into its evidence; those of an earlier session of the same phase are replaced."""
    for candidate_id, table in session.tables.items():
        path = run.timings(session.candidates[candidate_id])
        headers: dict[str, Any] = {}
        if path.exists():
            old, headers = load_timings(path), load_headers(path)
            table = old.filter(old["phase"] != session.phase).vstack(table)  # noqa: PLW2901
        tables.write(path, table, {**headers, session.phase: session.header})


def load_timings(path: Path) -> pl.DataFrame:
    """A candidate's stored rows, with the columns of ``COLUMNS``; an ArtifactError where they are not to be had."""
    table, _ = tables.read(path)
    if tuple(table.columns) != COLUMNS:
        raise ArtifactError(f"'{path}' does not hold timings", hint="delete it and type the command that made it again")
    return table


def load_headers(path: Path) -> dict[str, Any]:
    """phase: the conditions of the session that it was timed in, and what that session cost."""
    return tables.read(path)[1]


def _rival_seat(pair: Comparison) -> str:
    """The key of the rival's worker. A candidate against itself needs a second process."""
    return f"{pair.rival.id}, second" if pair.rival.id == pair.candidate.id else pair.rival.id


class _Clock:
    """Gives the workers their turns and keeps what they answer."""

    def __init__(self, name: str, phase: Phase, opened: dict[str, Worker]) -> None:
        self.start = time.monotonic()
        self.computing = 0.0
        """Seconds that the workers spent inside their models."""
        self._name, self._phase, self._opened = name, phase, opened
        self._rows: dict[str, list[dict[str, Any]]] = {}

    def slot(
        self, seat: str, batch: int, copy: int, *, ms: float | None = None, calls: int = SLOT_CALLS
    ) -> dict[str, Any]:
        """One slot of one worker: its ms, calls and the second of the session at which it began."""
        at = time.monotonic() - self.start
        reply = self._opened[seat].slot(batch, copy, SLOT_MS if ms is None else ms, calls)
        self.computing += reply["busy"]
        return {"batch": batch, "ms": reply["ms"], "calls": reply["calls"], "at": at}

    def quartet(self, pair: Comparison, turn: Turn, batch: int) -> None:
        """Four slots, in the order drawn."""
        seats = {"A": ("candidate", pair.candidate.id), "B": ("rival", _rival_seat(pair))}
        for number, letter in enumerate(turn.order):
            side, seat = seats[letter]
            row = {"rival": pair.rival.id, "quartet": turn.quartet, "order": turn.order, "slot": number, "side": side}
            self._keep(pair.candidate.id, row | self.slot(seat, batch, turn.quartet))

    def throughput(self, seats: list[str]) -> None:
        """Each candidate alone with large batches, round by round in changing order."""
        draw = generator("throughput", self._name)
        rounds = range(THROUGHPUT_ROUNDS)
        for number in track(rounds, f"timing, {THROUGHPUT_BATCH} images at a time", total=len(rounds)):
            for place, index in enumerate(draw.permutation(len(seats))):
                row = {"rival": None, "quartet": number, "order": None, "slot": place, "side": "candidate"}
                self._keep(seats[index], row | self.slot(seats[index], THROUGHPUT_BATCH, 0, calls=1))

    def tables(self) -> dict[str, pl.DataFrame]:
        """candidate id: its rows."""
        return {key: self._table(rows) for key, rows in self._rows.items()}

    def _keep(self, candidate_id: str, row: dict[str, Any]) -> None:
        self._rows.setdefault(candidate_id, []).append({"phase": self._phase, "session": self._name, **row})

    def _table(self, rows: list[dict[str, Any]]) -> pl.DataFrame:
        columns: dict[str, Any] = {name: [row[name] for row in rows] for name in COLUMNS}
        for name in ("quartet", "slot", "batch", "calls"):
            columns[name] = np.asarray(columns[name], np.int32)
        return tables.frame(columns, schema={"rival": str, "order": str})
