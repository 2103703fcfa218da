"""How a worker follows rollouts: it looks at the store once a second, opens the candidate, routes to it, and puts a
promoted one in the stable model's place."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from torchstone.core import console
from torchstone.core.errors import TorchstoneError
from torchstone.serve.rollout import record
from torchstone.serve.rollout.plan import STABLE, Plan, Split
from torchstone.serve.store import tables
from torchstone.serve.values import Route

POLL = 1.0
"""Seconds between two looks at the store."""
TRUST = 30.0
"""Seconds without the store after which the candidate gets nothing: nobody would see what harm it does."""


class Follower:
    """The router of one model (``values.Router``).

    ``opens`` gets a candidate's bundle before the first request is routed to it, ``closes`` is called when none is
    routed there any more, and ``replaces`` gets the bundle that is the stable one from now on. They are called in the
    follower's own thread, and raise a TorchstoneError where a bundle cannot be served.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        stable: Path,
        opens: Callable[[Path], None],
        closes: Callable[[], None],
        replaces: Callable[[Path], None],
        trust: float = TRUST,
    ) -> None:
        self._engine = tables.engine(url)
        self._model = model
        self._opens, self._closes, self._replaces = opens, closes, replaces
        self._trust = trust
        self._split: Split | None = None
        self._known: str | None = None
        """Of the rollout that was opened last."""
        self._stable = str(stable.resolve())
        """The bundle that was the stable one at the last look, or at the start."""
        self._heard = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rollout-follower", daemon=True)

    def start(self) -> None:
        """Look at the store once a second from now on."""
        self._thread.start()

    def close(self) -> None:
        """Look no more; every request goes to the stable model."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(10)
        self._split = None
        self._engine.dispose()

    def route(self, id: str, key: str | None) -> Route:
        """Who answers this request. Never blocks."""
        split = self._split
        return STABLE if split is None else split.route(id, key)

    def look(self) -> None:
        """Look at the store now. Not to be called once ``start`` was."""
        try:
            with self._engine.connect() as connection:
                found = record.running(connection)
                stable = record.stable_bundle(connection, self._model)
        except SQLAlchemyError:
            if self._split is not None and time.monotonic() - self._heard > self._trust:
                console.say(f"{tables.WHAT} is away for {self._trust:g} s: the candidate gets no more requests")
                self._leave()
            return
        self._heard = time.monotonic()
        plan = found.plan if found is not None and found.plan.model == self._model else None
        if plan is None or plan.id != self._known:
            self._leave()
        if stable is not None and stable != self._stable:
            self._replace(stable)
        if plan is not None and plan.id != self._known:
            self._enter(plan)

    def _replace(self, stable: str) -> None:
        self._stable = stable
        try:
            self._replaces(Path(stable))
            console.say(f"'{self._model}' is answered by '{stable}' now")
        except (TorchstoneError, OSError) as error:
            console.say(f"'{stable}' cannot be served, the model before it goes on: {error}")

    def _enter(self, plan: Plan) -> None:
        self._known = plan.id
        try:
            self._opens(Path(plan.candidate))
        except (TorchstoneError, OSError) as error:
            console.say(f"rollout {plan.id}: the candidate cannot be opened: {error}")
            self._abort(plan, f"the candidate cannot be opened: {error}")
            return
        self._split = Split(plan)

    def _leave(self) -> None:
        was, self._split, self._known = self._split, None, None
        if was is not None:
            self._closes()

    def _abort(self, plan: Plan, reason: str) -> None:
        """End the rollout; if the store is away now, the next look tries to open the candidate again."""
        try:
            with self._engine.begin() as connection:
                found = record.running(connection)
                if found is not None and found.plan.id == plan.id:
                    decision = record.Decision(kind="aborted", reason=reason, numbers={}, time=time.time())
                    record.end(connection, found, "aborted", decision)
        except SQLAlchemyError:
            self._known = None

    def _run(self) -> None:
        while not self._stop.is_set():
            self.look()
            self._stop.wait(POLL)
