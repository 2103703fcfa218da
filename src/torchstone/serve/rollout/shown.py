"""The running rollout as numbers on the board, for ``/metrics``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torchstone.serve.board import Slot
from torchstone.serve.metrics import cell
from torchstone.serve.rollout.monitors import MONITORS
from torchstone.serve.rollout.plan import Plan
from torchstone.serve.rollout.record import Status


class RolloutNumbers:
    """What a controller is told to tell."""

    def __init__(self, slot: Slot) -> None:
        self._slot = slot
        self._plan: Plan | None = None

    def seen(self, plan: Plan | None, numbers: Mapping[str, Any]) -> None:
        """``plan`` is running, and stands like this; None: nothing is."""
        if self._plan is not None and (plan is None or plan.id != self._plan.id):
            self._set(self._plan, running=0.0, labels=0.0)
            for monitor in MONITORS:
                self._evidence(self._plan, monitor, 0.0, 0.0)
        self._plan = plan
        if plan is None:
            return
        self._set(plan, running=1.0, labels=float(numbers["labels"]))
        for monitor in MONITORS:
            one = numbers[monitor]
            self._evidence(
                plan, monitor, share(one["worse"], one["worse_at"]), share(one["no_worse"], one["no_worse_at"])
            )

    def ended(self, plan: Plan, status: Status) -> None:
        cell(self._slot, "torchstone_rollouts_ended", model=plan.model, status=status)[0] += 1.0
        self.seen(None, {})

    def failed(self) -> None:
        """A look at the store failed."""
        cell(self._slot, "torchstone_watch_failures", thread="rollout-controller")[0] += 1.0

    def _set(self, plan: Plan, *, running: float, labels: float) -> None:
        cell(self._slot, "torchstone_rollout_running", model=plan.model, mode=plan.mode)[0] = running
        cell(self._slot, "torchstone_rollout_labels", model=plan.model)[0] = labels

    def _evidence(self, plan: Plan, monitor: str, worse: float, no_worse: float) -> None:
        for against, value in (("worse", worse), ("no worse", no_worse)):
            labels = {"model": plan.model, "monitor": monitor, "against": against}
            cell(self._slot, "torchstone_rollout_evidence", **labels)[0] = value


def share(log_wealth: float, threshold: float) -> float:
    """0 where nothing is known, 1 where it decides, below 0 where it speaks for the other side; -1 at least."""
    return max(-1.0, log_wealth / threshold)
