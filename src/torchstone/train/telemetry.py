"""What the coach has to know of a training, gathered while it runs.

Most of it the loop knows already: losses, norms, times. Layers are looked at in few steps, so that a step costs about
a hundredth more at most. A unit is silent when no gradient reaches what leads into it: with ReLU that is a dead unit,
and it is seen without a hook on any layer, whether the ReLU is a module or a function.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from torchstone.core import tables
from torchstone.core.values import Finding
from torchstone.data import findings
from torchstone.data.sampling import class_weights
from torchstone.evaluate import predict
from torchstone.train import coach
from torchstone.train import history as histories
from torchstone.train.coach import Broken, Layer, Record, Suspect
from torchstone.train.device import arithmetic, autocast
from torchstone.train.modes import judging
from torchstone.train.observe import Epoch, Observer, Step
from torchstone.train.origin import origin, short

if TYPE_CHECKING:
    from torchstone.train.job import Job

LAYERS, IMAGES = "layers.parquet", "images.parquet"
LOOKS = 8
"""Steps of an epoch in which layers are looked at."""
SPARSE = 12
"""Steps from one look to the next, at least: a look costs up to a twelfth of a small network's step."""
SEEN = 256
"""Images without a gradient after which a unit counts as silent."""
WEIGHTS = 4096
"""Weights of a layer by which the length of a step is measured, about."""
MEMORY = 0.3
"""Weight of the newest epoch in an image's late loss: about the last six count."""
SUSPECTS = 96
"""Images with the highest late losses that are kept."""


@dataclass
class _Look:
    """One layer: where it is, and what has been seen of it since the last epoch's end."""

    name: str
    kind: str
    parameter: nn.Parameter
    bias: nn.Parameter | None
    gradients: list[float] = field(default_factory=list)
    updates: list[float] = field(default_factory=list)
    rows: list[tuple[float, float, float]] = field(default_factory=list)
    """A finished epoch each: gradient, update, silent."""

    @property
    def bias_gradient(self) -> torch.Tensor | None:
        return None if self.bias is None else self.bias.grad

    @property
    def sample(self) -> torch.Tensor:
        """Some of the weights, spread over rows and columns."""
        stride = math.ceil(math.sqrt(self.parameter.numel() / WEIGHTS))
        return self.parameter.detach()[::stride, ::stride]


class Telemetry(Observer):
    """Gathers a ``Record`` for the coach, and the measurements that the training page draws."""

    name = "telemetry"

    def __init__(self) -> None:
        self._looks: list[_Look] = []
        self._before = self._owners = self._places = torch.zeros(0)
        self._unheard = torch.zeros(0)
        """int64[units of all layers]: images that were looked at since a gradient last came through."""
        self._shown: list[tuple[NDArray[np.intp], torch.Tensor]] = []
        """Images and losses of the steps that have not been added up."""
        self._look_at = -1
        self._norms: list[float] = []
        self._late = np.zeros(0, np.float32)
        self._sums, self._counts = np.zeros(0, np.float32), np.zeros(0, np.int32)
        self._predicted: list[list[int]] = []
        self._labels: list[int] = []
        self._suspects: list[Suspect] = []
        self.broken: Broken | None = None
        """Where the training stopped being numbers."""
        self._rows: list[dict[str, float]] = []
        self._answers: NDArray[np.float32] | None = None
        """Logits on val of the weights that were kept."""

    def begin(self, job: Job) -> None:
        self._job = job
        modules = dict(job.model.network.named_modules())
        self._looks = [
            _Look(short(owner), type(modules[owner]).__name__, parameter, _bias(modules[owner], parameter))
            for name, parameter in job.model.network.named_parameters()
            if parameter.ndim > 1
            for owner in (name.rpartition(".")[0],)
        ]
        units = [len(look.parameter) for look in self._looks]
        weights = [look.sample.numel() for look in self._looks]
        numbers = torch.arange(len(self._looks))
        self._owners = numbers.repeat_interleave(torch.tensor(units, dtype=torch.int64)).to(job.device)
        self._places = numbers.repeat_interleave(torch.tensor(weights, dtype=torch.int64)).to(job.device)
        self._unheard = torch.zeros(sum(units), dtype=torch.int64, device=job.device)
        self._every = min(max(1, job.steps), max(SPARSE, job.steps // LOOKS))
        self._mixes = bool(job.recipe.mixup or job.recipe.cutmix)
        images = 0 if self._mixes else len(job.train)
        self._late = np.full(images, np.nan, np.float32)
        self._sums, self._counts = np.zeros(images, np.float32), np.zeros(images, np.int32)

    def gradients(self, job: Job, number: int) -> None:
        if number % self._every or not self._looks:
            return
        self._look_at, self._before = number, self._sample()
        units = torch.cat([_by_unit(look.parameter.grad, look.parameter) for look in self._looks])
        shifts = torch.cat([_by_unit(look.bias_gradient, look.parameter) for look in self._looks])
        through = (units > 0) | (shifts > 0)  # weights that only ever see zeros get no gradient, but their bias does
        self._unheard = torch.where(through, 0, self._unheard + job.recipe.batch)
        squares = torch.zeros(len(self._looks), dtype=torch.float64, device=units.device)  # tiny ones must not vanish
        squares.index_add_(0, self._owners, units.double().square())
        for look, square in zip(self._looks, squares.tolist(), strict=True):
            if look.parameter.grad is not None and math.isfinite(square):  # float16 leaves out a step that overflows
                look.gradients.append(math.sqrt(square / look.parameter.numel()))

    def step(self, step: Step) -> None:
        if math.isfinite(step.gradient):
            self._norms.append(step.gradient)
        if not self._mixes:
            self._shown.append((step.items, step.losses.detach()))
        if step.number == self._look_at:
            self._measure_step()

    def _measure_step(self) -> None:
        """How far the step that was looked at went."""
        now, then, count = self._sample(), self._before, len(self._looks)
        moved = torch.zeros(count, device=now.device).index_add_(0, self._places, (now - then).square())
        size = torch.zeros(count, device=now.device).index_add_(0, self._places, then.square())
        for look, length in zip(self._looks, (moved / size.clamp_min(1e-30)).sqrt().tolist(), strict=True):
            if look.parameter.grad is not None and math.isfinite(length):
                look.updates.append(length)
        self._look_at = -1

    def _sample(self) -> torch.Tensor:
        """float32[weights]: some of each layer's, one layer after the other."""
        return torch.cat([look.sample.reshape(-1) for look in self._looks])

    def _add_up(self) -> None:
        """Take the losses of the steps since the last time to their images."""
        if self._shown:
            items = np.concatenate([items for items, _ in self._shown])
            losses = torch.cat([losses for _, losses in self._shown]).float().cpu().numpy()
            np.add.at(self._sums, items, losses)
            np.add.at(self._counts, items, 1)
            self._shown = []

    def epoch(self, epoch: Epoch) -> Mapping[str, float] | None:
        self._add_up()
        silent = self._unheard.split([len(look.parameter) for look in self._looks]) if self._looks else ()
        for look, units in zip(self._looks, silent, strict=True):
            share = float((units >= SEEN).float().mean()) if look.gradients else math.nan
            look.rows.append((_median(look.gradients), _median(look.updates), share))
            look.gradients, look.updates = [], []
        classes = epoch.logits.shape[1]
        self._labels = np.bincount(epoch.labels, minlength=classes).tolist()
        self._predicted.append(np.bincount(epoch.logits.argmax(1), minlength=classes).tolist())
        shown = self._counts > 0
        now = np.divide(self._sums, self._counts, out=np.full_like(self._sums, np.nan), where=shown)
        fresh = shown & np.isnan(self._late)
        self._late[fresh] = now[fresh]
        self._late[shown] += MEMORY * (now[shown] - self._late[shown])
        self._sums[:], self._counts[:] = 0, 0
        self._rows.append(dict(epoch.row))
        norms, clip = np.array(self._norms or [0.0]), self._job.recipe.clip
        self._norms = []
        more = {
            "gradient_largest": float(norms.max()),
            "clipped_share": float((norms > clip).mean()) if clip else 0.0,
        }
        self._rows[-1].update(more)
        return more

    def broke(
        self, job: Job, number: int, x: torch.Tensor, rows: NDArray[np.intp], what: str, parts: int
    ) -> str | None:
        items = [job.train.items[int(row)] for row in rows if int(row) < len(job.train)]
        try:
            where, fault = origin(job, number, x, items, what, parts)
        except Exception:  # such as no memory: that it broke is to be told in any case
            where, fault = None, None
        epoch, batch = divmod(number, max(1, job.steps))
        self.broken = Broken(epoch=epoch + 1, batch=batch + 1, what=what, where=where, fault=fault)
        return where

    def end(self, best_epoch: int, answers: NDArray[np.float32]) -> None:
        self._answers = answers
        late = self._late_losses()
        known = np.flatnonzero(np.isfinite(late))
        worst = known[np.argsort(-late[known], kind="stable")][:SUSPECTS]
        if len(worst):
            predicted, items = _predictions(self._job, worst), self._job.train.items
            self._suspects = [
                Suspect(
                    item=str(items[row]),
                    label=int(self._job.train.labels[row]),
                    predicted=predicted[at],
                    loss=float(late[row]),
                )
                for at, row in enumerate(worst.tolist())
            ]

    def _late_losses(self) -> NDArray[np.float32]:
        """Of each training image, as if no class counted more than another."""
        recipe, labels = self._job.recipe, self._job.train.labels
        if not recipe.class_weights or not len(self._late):
            return self._late
        return self._late / class_weights(labels, self._job.outputs, recipe.class_weights)[labels]

    def record(self, best_epoch: int = 0) -> Record:
        """What was gathered, for the coach. ``best_epoch`` is the one that was kept; 0: the training broke off."""
        late = self._late_losses()
        return Record(
            recipe=self._job.recipe,
            classes=tuple(self._job.classes) or tuple(str(label) for label in range(self._job.outputs)),
            history=self._rows,
            best_epoch=best_epoch,
            labels=np.array(self._labels, np.int64),
            predicted=np.array(self._predicted, np.int64),
            layers=[
                Layer(
                    name=look.name,
                    kind=look.kind,
                    gradient=[row[0] for row in look.rows],
                    update=[row[1] for row in look.rows],
                    silent=[row[2] for row in look.rows],
                )
                for look in self._looks
            ],
            late=late[np.isfinite(late)],
            suspects=self._suspects,
            broken=self.broken,
            bf16_pays=arithmetic("auto")[1] == "bf16",
        )

    def keep(self, directory: Path, best_epoch: int = 0) -> list[Finding]:
        """Ask the coach, and write what it says and what the training page draws into ``directory``: ``findings.json``,
        ``layers.parquet`` (a row a layer and epoch), ``images.parquet`` (the highest late losses), ``answers.parquet``
        (what the kept weights answered on val, as ``evaluate.predict`` stores it)."""
        record = self.record(best_epoch)
        found = coach.diagnose(record)
        findings.store(directory, found)
        rows = [
            (layer.name, layer.kind, epoch, *values)
            for layer in record.layers
            for epoch, values in enumerate(zip(layer.gradient, layer.update, layer.silent, strict=True), start=1)
        ]
        names = ("layer", "kind", "epoch", "gradient", "update", "silent")
        columns = {name: [row[at] for row in rows] for at, name in enumerate(names)}
        tables.write(directory / LAYERS, tables.frame(columns))
        classes = record.classes
        suspects = {
            "item": [one.item for one in record.suspects],
            "label": [classes[one.label] for one in record.suspects],
            "predicted": [classes[one.predicted] for one in record.suspects],
            "loss": [one.loss for one in record.suspects],
        }
        median = None if math.isnan(record.typical_loss) else record.typical_loss
        tables.write(directory / IMAGES, tables.frame(suspects), {"median_loss": median})
        if self._answers is not None:
            val, header = self._job.val, {"part": "val", "kind": "logits", "epoch": best_epoch}
            answers = predict.Predictions(
                items=np.asarray(val.items), labels=val.labels, scores=self._answers, header=header
            )
            predict.store(directory / histories.ANSWERS, answers)
        return found

    def state(self) -> dict[str, Any]:
        self._add_up()
        return {
            "late": torch.from_numpy(self._late.copy()),
            "sums": torch.from_numpy(self._sums.copy()),
            "counts": torch.from_numpy(self._counts.copy()),
            "unheard": self._unheard.cpu(),
            "norms": list(self._norms),
            "predicted": [list(row) for row in self._predicted],
            "labels": list(self._labels),
            "rows": [dict(row) for row in self._rows],
            "layers": [
                {
                    "gradients": list(look.gradients),
                    "updates": list(look.updates),
                    "rows": [[_told(value) for value in row] for row in look.rows],
                }
                for look in self._looks
            ],
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._late = state["late"].numpy().copy()
        self._sums, self._counts = state["sums"].numpy().copy(), state["counts"].numpy().copy()
        self._norms = list(state["norms"])
        self._predicted = [list(row) for row in state["predicted"]]
        self._labels = list(state["labels"])
        self._rows = [dict(row) for row in state["rows"]]
        self._unheard = state["unheard"].to(self._job.device)
        for look, stored in zip(self._looks, state["layers"], strict=True):
            look.gradients, look.updates = list(stored["gradients"]), list(stored["updates"])
            look.rows = [(_heard(row[0]), _heard(row[1]), _heard(row[2])) for row in stored["rows"]]


def _bias(module: nn.Module, weight: nn.Parameter) -> nn.Parameter | None:
    """What the module adds to each of its units, if it does."""
    found = getattr(module, "bias", None)
    return found if isinstance(found, nn.Parameter) and found.shape == weight.shape[:1] else None


def _by_unit(gradient: torch.Tensor | None, weights: nn.Parameter) -> torch.Tensor:
    """float32[units]: the gradient's length for each unit (channel) of the weights; zeros where there is none."""
    if gradient is None:
        return weights.new_zeros(len(weights), dtype=torch.float32)
    if gradient.ndim == 1:
        return gradient.abs()
    return torch.linalg.vector_norm(gradient, dim=tuple(range(1, gradient.ndim)))


def _median(values: Sequence[float]) -> float:
    return float(np.median(values)) if values else math.nan


def _told(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else value


def _heard(value: float | None) -> float:
    return math.nan if value is None else value


def _predictions(job: Job, rows: NDArray[np.intp]) -> list[int]:
    """The class that the network gives each of these training images, as evaluation sees them."""
    model = job.model
    with judging(model), torch.inference_mode(), autocast(job.recipe.precision):
        pixels = torch.from_numpy(np.ascontiguousarray(job.train.images(np.sort(rows)))).to(job.device)
        found = torch.cat([model(part).argmax(1) for part in pixels.split(32)]).tolist()
    by_row = dict(zip(np.sort(rows).tolist(), found, strict=True))
    return [by_row[row] for row in rows.tolist()]
