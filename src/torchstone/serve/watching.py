"""How drift is noticed: workers look at a few images a second and note what they saw; the supervisor, where all notes
come together, fills windows and compares them with the bundle's reference.

A worker that measured every image would take that time from its answers, and a window need not be full within a
second. A note is numbers and the answer's id. Pictures are kept only where somebody asked for them, small, and few.
"""

from __future__ import annotations

import contextlib
import json
import math
import random
import struct
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from torchstone.core import console
from torchstone.core.errors import ArtifactError
from torchstone.data.appearance import QUANTITIES, appearance
from torchstone.export import reference as references
from torchstone.export.reference import COLUMNS, Reference
from torchstone.serve import drift
from torchstone.serve.board import Block, Board, Page, Slot
from torchstone.serve.looking import keep_looking
from torchstone.serve.metrics import cell
from torchstone.serve.values import Look

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from torchstone.serve.model import Served

NOTES = 256
"""Notes that a worker's ring holds: what the supervisor does not read in a minute is overwritten."""
_NOTE = struct.Struct(f"<16s{len(COLUMNS)}f")
_SIZE = _NOTE.size + -_NOTE.size % 8
POLL = 1.0
"""Seconds between two looks at the workers' notes."""
PAGE = 64 * 1024
"""Bytes for what is told of one model, twice."""
COPY = 64
"""Pixels of the longer side of a small copy."""
FAR = 2.0
"""Of the reference's spreads: an image this far out is worth a copy."""


class Ring:
    """The last notes of one worker on one model; how many there have been so far stands before them."""

    def __init__(self, room: memoryview) -> None:
        self._count = room[:8].cast("Q")
        self._notes = room[8:]

    @staticmethod
    def size() -> int:
        return 8 + NOTES * _SIZE

    @property
    def written(self) -> int:
        return self._count[0]

    def note(self, id: str, values: NDArray[np.float32]) -> None:
        _NOTE.pack_into(self._notes, self._count[0] % NOTES * _SIZE, bytes.fromhex(id), *values.tolist())
        self._count[0] += 1

    def since(self, count: int) -> list[tuple[str, tuple[float, ...]]]:
        """What was written after the first ``count`` notes and is still there."""
        written = self.written
        found = []
        for place in range(max(count, written - NOTES), written):
            id, *values = _NOTE.unpack_from(self._notes, place % NOTES * _SIZE)
            found.append((id.hex(), tuple(values)))
        return found


@dataclass(slots=True)
class Looked:
    """What a worker knows of a model whose images it looks at."""

    ring: Ring
    reference: Reference
    next: float = 0.0


class Looks:
    """The worker's part: which images are looked at, and what is noted of them."""

    def __init__(self, slot: Slot, rate: float, copies: int = 0, place: Path | None = None) -> None:
        """``rate`` images a second are looked at, about; of those that lie far out, the last ``copies`` are kept as
        small pictures in ``place``."""
        self._slot = slot
        self._rate = rate
        self._copies = copies
        self._place = place
        self._models: dict[str, tuple[str, Looked]] = {}
        self._lock = threading.Lock()

    def opened(self, model: str, served: Served) -> None:
        """Images of ``model`` are looked at from now on, if its bundle says what to compare them with."""
        try:
            reference = references.load(served.directory)
        except ArtifactError as error:
            console.say(f"{model}: drift is not watched: {error}")
            reference = None
        if reference is None or not self._rate:
            self._models.pop(model, None)
            return
        room = self._slot.block(
            Ring.size(), ring=model, bundle=served.bundle, reference=str(served.directory.resolve())
        )
        self._models[model] = (served.bundle, Looked(Ring(room), reference))

    def wanted(self, model: str) -> bool:
        """About ``rate`` times a second: yes. At random moments, with which no rhythm of requests is in step."""
        known = self._models.get(model)
        if known is None:
            return False
        now = time.monotonic()
        if now < known[1].next:
            return False
        known[1].next = now + random.expovariate(self._rate)
        return True

    def looked(self, model: str, bundle: str, look: Look) -> None:
        known = self._models.get(model)
        if known is None or known[0] != bundle:  # it was exchanged meanwhile
            return
        seen = np.full(len(QUANTITIES), math.nan, np.float32)
        if look.pixels is not None:
            seen = appearance(look.pixels, look.side)
        values = np.array([*seen, look.confidence, look.label], np.float32)
        with self._lock:
            known[1].ring.note(look.id, values)
        if self._copies and self._place is not None and look.pixels is not None:
            far = drift.distances(known[1].reference, values[None])
            if np.nanmax(far) >= FAR:
                keep_copy(self._place, look.id, look.pixels, self._copies)


def keep_copy(place: Path, id: str, pixels: NDArray[np.uint8], most: int) -> None:
    """A small PNG of what the model saw, called like its answer; the oldest beyond ``most`` leave. Ids sort by time."""
    from PIL import Image

    with contextlib.suppress(OSError):  # a full disk must not end what is watched
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        image = Image.fromarray(pixels)
        image.thumbnail((COPY, COPY))
        image.save(place / f"{id}.png")
        for old in sorted(place.glob("*.png"))[:-most]:
            old.unlink(missing_ok=True)


@dataclass(slots=True)
class Window:
    """What the supervisor knows of one model."""

    bundle: str
    reference: Reference
    ids: list[str] = field(default_factory=list)
    rows: list[tuple[float, ...]] = field(default_factory=list)
    windows: int = 0
    alarms: int = 0
    last: dict[str, Any] | None = None


class Watcher:
    """The supervisor's part: one thread, which reads all rings."""

    def __init__(self, board: Board, slot: Slot, window: int) -> None:
        """``window`` images are compared at once."""
        self._board = board
        self._slot = slot
        self._size = window
        self._windows: dict[str, Window] = {}
        self._read: dict[tuple[int, str, str], int] = {}

    def run(self, stop: threading.Event) -> None:
        """Look until told to stop."""

        def failed() -> None:
            cell(self._slot, "torchstone_watch_failures", thread="drift-watcher")[0] += 1.0

        keep_looking(self.look, stop, pause=POLL, what="drift is not watched", failed=failed)

    def look(self) -> None:
        """Read what is new, and compare each window that is full."""
        for number_, block in self._board.blocks():
            if "ring" in block.what:
                self._take(number_, block)

    def _take(self, number_: int, block: Block) -> None:
        model, bundle = block.what["ring"], block.what["bundle"]
        ring = Ring(block.room)
        place = (number_, model, bundle)
        new = ring.since(self._read.get(place, 0))
        self._read[place] = ring.written
        if not new:
            return
        window = self._windows.get(model)
        if window is None or window.bundle != bundle:
            reference = _reference(block.what["reference"])
            if reference is None:
                return
            window = self._windows[model] = Window(bundle, reference)
        for id, values in new:
            window.ids.append(id)
            window.rows.append(values)
            if len(window.rows) == self._size:
                self._compare(model, window)
        self._tell(model, window)

    def _compare(self, model: str, window: Window) -> None:
        """The window is full: compare it, and begin the next."""
        rows = np.array(window.rows, np.float32)
        moved = drift.compare(window.reference, rows)
        alarm = any(one.alarm for one in moved)
        was = window.last is not None and window.last["alarm"]
        window.last = {
            "time": time.time(),
            "alarm": alarm,
            "quantities": [one.row for one in moved],
            "furthest": drift.furthest(window.reference, rows, window.ids),
        }
        window.windows += 1
        window.alarms += alarm
        window.ids, window.rows = [], []
        for one in moved:
            for name, value in (("psi", one.psi), ("p_value", one.p_value)):
                cell(self._slot, f"torchstone_drift_{name}", model=model, quantity=one.quantity)[0] = value
        cell(self._slot, "torchstone_drift_alarm", model=model)[0] = float(alarm)
        cell(self._slot, "torchstone_drift_windows", model=model)[0] += 1.0
        cell(self._slot, "torchstone_drift_alarms", model=model)[0] += float(alarm)
        if alarm and not was:
            what = ", ".join(f"{one.quantity} (PSI {one.psi:.2f})" for one in moved if one.alarm)
            console.say(f"'{model}': the last {self._size:,} images are not like validation's: {what}")
        elif was and not alarm:
            console.say(f"'{model}': the last {self._size:,} images are like validation's again")

    def _tell(self, model: str, window: Window) -> None:
        told = {
            "bundle": window.bundle,
            "reference": len(window.reference.values),
            "window": self._size,
            "filled": len(window.rows),
            "windows": window.windows,
            "alarms": window.alarms,
            "level": drift.LEVEL,
            "last": window.last,
        }
        Page(self._slot.block(PAGE, drift=model)).write(json.dumps(told).encode())


def told(board: Board) -> dict[str, Any]:
    """What the watcher says of each model that is watched, by name."""
    found: dict[str, Any] = {}
    blocks = [block for _, block in board.blocks()]
    for block in blocks:
        if "ring" in block.what:  # so far nothing may have come
            found[block.what["ring"]] = {"bundle": block.what["bundle"], "filled": 0, "windows": 0, "last": None}
    for block in blocks:
        if "drift" in block.what and (text := Page(block.room).read()) is not None:
            found[block.what["drift"]] = json.loads(text)
    return found


def _reference(directory: str) -> Reference | None:
    try:
        return references.load(Path(directory))
    except ArtifactError as error:
        console.say(f"drift is not watched: {error}")
        return None
