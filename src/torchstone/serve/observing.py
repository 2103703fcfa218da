"""All that a worker observes of its services, behind the one protocol that they know (``values.Observer``)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING

from torchstone.serve.board import Board, Slot
from torchstone.serve.metrics import Metrics, cell
from torchstone.serve.settings import ServeSettings
from torchstone.serve.values import Cache, Role
from torchstone.serve.watching import Looks

if TYPE_CHECKING:
    from torchstone.serve.model import Served
    from torchstone.serve.rollout.attached import Attached
    from torchstone.serve.service import Service


class Observing:
    """Counts of everything, and a close look at a few images."""

    def __init__(self, board: Board, slot: Slot, settings: ServeSettings) -> None:
        self.board = board
        self._slot = slot
        self._metrics = Metrics(slot, version("torchstone"))
        place = settings.state_directory / "drift"
        self._looks = Looks(slot, settings.drift_rate, settings.drift_copies, place)
        self.replied = self._metrics.replied
        self.answered = self._metrics.answered
        self.refused = self._metrics.refused
        self.inferred = self._metrics.inferred
        self.wanted = self._looks.wanted
        self.looked = self._looks.looked

    def opened(self, model: str, role: Role, served: Served) -> None:
        self._metrics.opened(model, role, served)
        if role == "stable":
            self._looks.opened(model, served)

    def ended(self, model: str, role: Role) -> None:
        self._metrics.ended(model, role)

    def begin(self, services: Mapping[str, Service], cache: Cache | None, attached: Attached) -> None:
        """Show what these count by themselves, from now on; called on the event loop when the worker is ready."""
        carry = self._metrics.carry
        for name, service in services.items():
            carry("torchstone_queue_images", lambda one=service: one.waiting, model=name)
            carry("torchstone_shadows_dropped", lambda one=service: one.shadows_dropped, model=name)
        if cache is not None:
            carry("torchstone_cache_hits", lambda: cache.hits)
            carry("torchstone_cache_misses", lambda: cache.misses)
            carry("torchstone_cache_errors", lambda: cache.errors)
        carry("torchstone_watch_failures", lambda: attached.failures, thread="rollout-follower")
        if (log := attached.log) is not None:
            carry("torchstone_log_rows_written", lambda: log.written)
            carry("torchstone_log_rows_lost", lambda: log.lost)
            carry("torchstone_log_rows_waiting", lambda: log.waiting)
        cell(self._slot, "torchstone_workers")[0] = 1.0
        self._metrics.beat(asyncio.get_running_loop())

    def pulse(self) -> None:
        """Bring this worker's own numbers up to now."""
        self._metrics.pulse()

    def close(self) -> None:
        """Keep the counts, and forget what is so no more."""
        self._metrics.close()
