"""How a worker follows rollouts: it looks at the store once a second, opens the candidate, routes to it, and puts a
promoted one in the stable model's place."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from torchstone.core import console
from torchstone.core.errors import ConfigError, TorchstoneError
from torchstone.serve.looking import keep_looking
from torchstone.serve.rollout import record
from torchstone.serve.rollout.plan import STABLE, Plan, Split
from torchstone.serve.rollout.record import Serving
from torchstone.serve.store import tables
from torchstone.serve.values import Route

POLL = 1.0
"""Seconds between two looks at the store."""
TRUST = 30.0
"""Seconds without a sign of the controller, or without the store, after which the candidate gets nothing: nobody would
see what harm it does."""
RETRY = 30.0
"""Seconds from a promoted bundle that could not be served to the next attempt."""


class Follower:
    """The router of one model (``values.Router``).

    ``opens`` gets a candidate's bundle and the id of the artifact that it must be before the first request is routed to
    it, ``closes`` is called when none is routed there any more, and ``replaces`` gets the bundle, and the id, that is
    the stable one from now on. They are called in the follower's own thread, and raise a TorchstoneError where a bundle
    cannot be served.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        stable: Path,
        opens: Callable[[Path, str], None],
        closes: Callable[[], None],
        replaces: Callable[[Path, str], None],
        trust: float = TRUST,
    ) -> None:
        self._engine = tables.engine(url)
        self._model = model
        self._opens, self._closes, self._replaces = opens, closes, replaces
        self._trust = trust
        self._split: Split | None = None
        self._open = False
        """Whether a candidate may be open: until it was closed without an error."""
        self._met: str | None = None
        """Of the rollout that was seen last."""
        self._known: str | None = None
        """Of the rollout whose candidate was opened last, or refused."""
        self._stable = str(stable.resolve())
        """The bundle that answers."""
        self._refused: tuple[str, float] = ("", 0.0)
        """The bundle that could not be put in its place, and when."""
        self._told: tuple[str, str] | None = None
        """Bundle and artifact that the store has still to be told of."""
        self._beat: float | None = None
        self._heard = time.monotonic()
        """When the controller last gave a sign. By this clock: its own machine may have another time."""
        self.failures = 0
        """Looks that failed."""
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

    def opened(self, bundle: Path, artifact: str) -> None:
        """``bundle`` was opened (again), and is ``artifact`` now: the next look tells the store, or ``tell``."""
        self._told = (str(bundle.resolve()), artifact)

    def tell(self) -> None:
        """Tell the store now; if it is away, the next look tries again. It may block for seconds."""
        try:
            self._tell()
        except SQLAlchemyError:
            self.failures += 1

    def look(self) -> None:
        """Look at the store now. Not to be called once ``start`` was."""
        now = time.monotonic()
        try:
            self._tell()
            with self._engine.connect() as connection:
                found = record.running(connection)
                serving = record.serving_of(connection, self._model)
                beat = record.beat_of(connection)
        except Exception as error:
            if self._split is not None and now - self._heard > self._trust:
                self._doubt(f"{tables.WHAT} cannot be read")
            if not isinstance(error, SQLAlchemyError):
                raise
            self.failures += 1  # the controller says it, once for all
            return
        if beat != self._beat:
            self._beat, self._heard = beat, now
        plan = found.plan if found is not None and found.plan.model == self._model else None
        if plan is None or plan.id != self._known:
            self._leave()
        if serving is not None and serving.bundle != self._stable and not self._replace(serving):
            return  # a candidate would be compared with another model than it was started against
        if plan is None:
            return
        if plan.id != self._met:  # the controller, too, sees it only now
            self._met, self._heard = plan.id, now
        if now - self._heard > self._trust:
            if self._split is not None:
                self._doubt("the rollout's controller gives no sign")
        elif plan.id != self._known:
            self._enter(plan)

    def _tell(self) -> None:
        if (told := self._told) is None:
            return
        with self._engine.begin() as connection:
            record.opened(connection, self._model, *told)
        if self._told == told:
            self._told = None

    def _replace(self, serving: Serving) -> bool:
        """Whether the bundle answers now. One that cannot be served is tried again: it may only be on its way."""
        bundle, since = self._refused
        if bundle == serving.bundle and time.monotonic() - since < RETRY:
            return False
        try:
            self._replaces(Path(serving.bundle), serving.artifact)
        except (TorchstoneError, OSError) as error:
            self.failures += 1
            if bundle != serving.bundle:
                console.say(f"'{serving.bundle}' cannot be served, the model before it goes on: {error}")
            self._refused = (serving.bundle, time.monotonic())
            return False
        self._stable = serving.bundle
        console.say(f"'{self._model}' is answered by '{serving.bundle}' now")
        return True

    def _enter(self, plan: Plan) -> None:
        self._known, self._open = plan.id, True
        try:
            self._opens(Path(plan.candidate), plan.candidate_id)
        except (TorchstoneError, OSError) as error:
            why = str(error) if isinstance(error, ConfigError) else f"the candidate cannot be opened: {error}"
            self._abort(plan, why)
            console.say(f"rollout {plan.id}: {why}")
            return
        self._split = Split(plan)

    def _doubt(self, why: str) -> None:
        console.say(f"{why} for {self._trust:g} s: the candidate gets no more requests")
        self._leave()

    def _leave(self) -> None:
        self._split = self._known = None
        if self._open:
            self._closes()
            self._open = False

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

    def _fail(self) -> None:
        self.failures += 1

    def _run(self) -> None:
        what = f"'{self._model}' follows no rollout"
        keep_looking(self.look, self._stop, pause=POLL, what=what, failed=self._fail)
