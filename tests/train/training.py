"""One small training as a process of its own that is killed at a chosen moment: SIGKILL leaves no time to tidy up.

``torchrun training.py PLAN.json`` runs it in several processes; then a death may be that of one of them.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from torchstone.core import console, files
from torchstone.data.preprocess import default_preprocess
from torchstone.models.deployable import Deployable
from torchstone.train import distributed, loop
from torchstone.train.observe import Epoch, Observer, Step
from torchstone.train.recipe import Recipe

SIDE, CLASSES = 16, 4


class Squares:
    """Bright squares in one of four corners, on noise (contracts.ImageSet); no file is read."""

    def __init__(self, count: int, seed: int) -> None:
        draws = np.random.default_rng(seed)
        self.labels = draws.integers(0, CLASSES, count)
        self.items = [str(number) for number in range(count)]
        self._stored = draws.integers(0, 200, (count, SIDE + 2, SIDE + 2, 3), dtype=np.uint8)
        for image, label in zip(self._stored, self.labels, strict=True):
            y, x = divmod(int(label), 2)
            image[2 + 8 * y : 8 + 8 * y, 2 + 8 * x : 8 + 8 * x] += 55

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, rows: Any) -> Any:
        return self._stored[rows][:, 1:-1, 1:-1]

    def stored(self, rows: Any) -> Any:
        return self._stored[rows]

    def encoded(self, row: int) -> bytes:
        raise NotImplementedError


def model() -> Deployable:
    """Two convolutions with batch norms, a dropout, a head."""
    torch.manual_seed(3)
    layers = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(2)),
        *(nn.Flatten(), nn.Dropout(0.2), nn.Linear(64, CLASSES)),
    )
    return Deployable(layers, default_preprocess(SIDE))


class Counting(Observer):
    """Remembers what it saw, and kills the process at one moment of a plan."""

    name = "counting"

    def __init__(self, at: Callable[[str, int], None]) -> None:
        self.at, self.steps, self.sum = at, 0, torch.zeros(())

    def gradients(self, job: Any, number: int) -> None:
        self.at("gradients", number)

    def step(self, step: Step) -> None:
        self.steps, self.sum = self.steps + 1, self.sum + step.losses.sum()
        self.at("step", step.number)

    def epoch(self, epoch: Epoch) -> dict[str, float]:
        self.at("epoch", epoch.number)
        return {"steps_seen": self.steps, "loss_seen": float(self.sum)}

    def state(self) -> dict[str, Any]:
        return {"steps": self.steps, "sum": self.sum}

    def restore(self, state: dict[str, Any]) -> None:
        self.steps, self.sum = state["steps"], state["sum"]


def train(directory: Path, options: dict[str, Any], death: list[Any] | None = None) -> None:
    """Train in ``directory``, going on from what is there, and leave ``end.pt`` and ``history.json``.

    ``death`` is where it dies: ['step' | 'gradients', number], ['epoch', number], ['writing', call, share of the
    file], or ['written', call].
    """
    cores, quiet = os.sched_getaffinity(0), console._quiet
    os.sched_setaffinity(0, [min(cores)])  # one core: the tests run beside others
    options = dict(options)
    console.be_quiet(not options.pop("loud", False))
    try:
        _train(directory, options, death)
    finally:
        os.sched_setaffinity(0, cores)
        console.be_quiet(quiet)


def _train(directory: Path, options: dict[str, Any], death: list[Any] | None) -> None:
    _die_while_writing(death)

    def at(place: str, number: int) -> None:
        if death == [place, number]:
            os.kill(os.getpid(), signal.SIGKILL)

    if not distributed.here().first:
        loop.take = _telling(loop.take, at)  # observers are the first process's alone
    recipe = Recipe(**{"epochs": 3, "batch": 16, "precision": "f32", "workers": 0, "checkpoint_seconds": 0, **options})
    trained = model()
    sets = Squares(112, 1), Squares(40, 2)
    classes = [f"class {number}" for number in range(CLASSES)]
    progress = loop.fit(trained, *sets, recipe, 5, directory, classes=classes, observers=[Counting(at)])
    if distributed.here().first:
        torch.save(trained.state_dict(), directory / "end.pt")
        clocks = ("seconds", "images_per_second", "waited_share")
        rows = [{name: value for name, value in row.items() if name not in clocks} for row in progress.history]
        (directory / "history.json").write_text(json.dumps(rows))


def _telling(take: Callable[..., Any], at: Callable[[str, int], None]) -> Callable[..., Any]:
    """``take``, saying which step was taken."""

    def told(state: Any, *arguments: Any, **options: Any) -> Any:
        taken = take(state, *arguments, **options)
        at("step", state.number)
        return taken

    return told


def train_in_little_memory(directory: Path, room: int) -> None:
    """Train wide layers on a batch of 64 in ``room`` bytes more than this process has now: what torch allocates beyond
    them is refused. Leaves the number of parts in ``parts.json``."""
    torch.set_num_threads(1)
    layers = nn.Sequential(
        *(
            nn.Conv2d(3, 64, 3, padding=1),
            nn.ReLU(),
            nn.Upsample(scale_factor=4),
            nn.Conv2d(64, 64, 1),
            nn.BatchNorm2d(64),
        ),
        *(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, CLASSES)),
    )
    trained = Deployable(layers, default_preprocess(SIDE))
    recipe = Recipe(epochs=2, batch=64, precision="f32", workers=0, augment="none")

    class Limiting(Observer):
        def begin(self, job: Any) -> None:
            held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (held + room, held + room))

    progress = loop.fit(trained, Squares(128, 1), Squares(40, 2), recipe, 5, directory, observers=[Limiting()])
    (directory / "parts.json").write_text(json.dumps([progress.parts, [row["train_loss"] for row in progress.history]]))


def _die_while_writing(death: list[Any] | None) -> None:
    if not death or death[0] not in ("writing", "written"):
        return
    write, calls = files.write_bytes, [0]

    def dying(path: Path, content: bytes) -> None:
        calls[0] += 1
        if calls[0] == death[1] and death[0] == "writing":
            path.with_name(f".{path.name}.{os.getpid()}.tmp").write_bytes(content[: int(len(content) * death[2])])
            os.kill(os.getpid(), signal.SIGKILL)
        write(path, content)
        if calls[0] == death[1]:
            os.kill(os.getpid(), signal.SIGKILL)

    files.write_bytes = dying


def main() -> None:
    """In one of torchrun's processes: the plan says which of them dies where, one death for each start."""
    plan = json.loads(Path(sys.argv[1]).read_text())
    start, rank = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")), int(os.environ["RANK"])
    deaths = plan["deaths"]
    dying, death = deaths[start] if start < len(deaths) else (None, None)
    with distributed.joined(gpu=False):
        train(Path(plan["directory"]), plan["options"], death if dying == rank else None)


if __name__ == "__main__":
    main()
