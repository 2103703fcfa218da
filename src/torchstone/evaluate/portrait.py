"""What a candidate is like to run, beyond the ratio that the judge decides by: batch 1 and 32, one thread and all of
them, the median and the slowest hundredth, the whole request from the encoded image on, and memory.

Nothing here is compared, so nothing here is a claim of one being faster; a p99 has its proof by itself: so many calls
that the quantile has a bound. The candidates take turns all the same, in rounds, so that a busy minute of the machine
does not fall on one of them alone.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from torchstone.core import files, machine, tables
from torchstone.core.console import track
from torchstone.core.errors import ArtifactError
from torchstone.core.seeding import generator
from torchstone.core.values import Candidate
from torchstone.evaluate.pool import Worker, workers

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

BATCHES = (1, 32)
ROUNDS = 8
BLOCK_MS = 40.0
MOST_SECONDS = 10.0
"""Of the calls of one kind, for models that are too slow for that many."""
COLUMNS = ("threads", "batch", "kind", "round", "ms")
"""Kinds: ``model`` (pixels to logits), ``prepare`` (encoded image to pixels), ``request`` (both)."""


def portraits(
    candidates: Sequence[Candidate], pixels: Mapping[int, NDArray[np.uint8]], encoded: Sequence[bytes], calls: int
) -> dict[str, tuple[pl.DataFrame, dict[str, Any]]]:
    """Candidate id: its table of ``COLUMNS``, a row a call, and what was true of the session.

    ``pixels`` are real images, uint8[n, side, side, 3] for each side that a candidate takes; ``encoded`` the files of
    some; ``calls`` are enough at batch 1 (``judge.tail.calls_needed``). Raises an ArtifactError that names the
    candidate whose process died or could not open its model.
    """
    rows: dict[str, list[dict[str, Any]]] = {one.id: [] for one in candidates}
    peaks: dict[str, dict[int, float]] = {one.id: {} for one in candidates}
    load = os.getloadavg()
    with tempfile.TemporaryDirectory(prefix="torchstone-") as scratch:
        paths = {side: Path(scratch) / f"pixels-{side}.npy" for side in pixels}
        for side, images in pixels.items():
            np.save(paths[side], images, allow_pickle=False)
        files = Path(scratch) / "files"
        files.mkdir()
        for number, content in enumerate(encoded):
            (files / f"{number:04}").write_bytes(content)
        for threads in dict.fromkeys((1, machine.usable_cores())):
            seats = {one.id: _with_threads(one, threads) for one in candidates}
            with workers(seats, paths, dict.fromkeys(BATCHES, 1)) as opened:
                for turn in track(range(ROUNDS), f"portraits, {threads} thread{'s' if threads > 1 else ''}", ROUNDS):
                    order = generator("portrait", threads, turn).permutation(len(candidates))
                    for key in (candidates[index].id for index in order):
                        for row in _round(opened[key], rows[key], threads, files, calls):
                            rows[key].append({"threads": threads, "round": turn, **row})
                for key, worker in opened.items():
                    peaks[key][threads] = worker.ask("memory")["peak_mb"]
    header = {
        "cpu": machine.cpu_name(),
        "cores": machine.usable_cores(),
        "packages": machine.versions(),
        "load_before": load,
        "load_after": os.getloadavg(),
    }
    found = {}
    for one in candidates:
        table = tables.frame({name: [row[name] for row in rows[one.id]] for name in COLUMNS})
        own = {"candidate_id": one.id, "peak_mb": peaks[one.id][1], "gzip_mb": gzipped_mb(one)}
        found[one.id] = (table, {**header, **own})
    return found


def store(path: Path, table: pl.DataFrame, header: dict[str, Any]) -> None:
    """Write one candidate's portrait."""
    tables.write(path, table, header)


def load(path: Path, candidate: Candidate) -> tuple[pl.DataFrame, dict[str, Any]]:
    """A stored portrait; an ArtifactError where the file holds none, or that of another candidate."""
    table, header = tables.read(path)
    if tuple(table.columns) != COLUMNS or header.get("candidate_id") != candidate.id:
        raise ArtifactError(
            f"'{path}' does not hold the portrait of '{candidate.name}'",
            hint="delete it and type the command that made it again",
        )
    return table, header


def gzipped_mb(candidate: Candidate) -> float:
    """10⁶ bytes of the model's files as gzip packs them: what travels, and where zeros are worth something."""
    directory = candidate.artifact.directory
    return sum(files.gzipped(directory / name) for name in candidate.artifact.files) / 1e6


def _round(
    worker: Worker, past: Sequence[Mapping[str, Any]], threads: int, files: Path, enough: int
) -> Iterator[dict[str, Any]]:
    """One candidate's calls of every kind in a round."""

    def wanted(kind: str) -> int:
        """Calls at batch 1: an even part of what is enough; one, where these have had their seconds."""
        spent = (row["ms"] for row in past if (row["threads"], row["batch"], row["kind"]) == (threads, 1, kind))
        return -(-enough // ROUNDS) if sum(spent) < 1e3 * MOST_SECONDS else 1

    for batch in BATCHES:
        calls = wanted("model") if batch == 1 else 1
        for spent in worker.ask("calls", batch=batch, ms=BLOCK_MS, calls=calls)["ms"]:
            yield {"batch": batch, "kind": "model", "ms": spent}
    if threads == 1:
        found = worker.ask("requests", files=str(files), ms=BLOCK_MS, calls=wanted("request"))
        for prepared, inferred in zip(found["prepare"], found["infer"], strict=True):
            yield {"batch": 1, "kind": "prepare", "ms": prepared}
            yield {"batch": 1, "kind": "request", "ms": prepared + inferred}


def _with_threads(candidate: Candidate, threads: int) -> Candidate:
    return candidate.model_copy(update={"options": candidate.options.model_copy(update={"threads": threads})})
