"""A head on a frozen backbone: what the backbone makes of each image is computed once, by the fastest runtime, and the
head that fits it best is found in seconds, with how much it has to be held back chosen on images it has not seen.

The head is multinomial logistic regression. Its answers are those of one linear layer, so that it becomes the network's
own last layer: the result is a network like any other.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from torchstone.core import console, machine
from torchstone.core.contracts import ImageSet
from torchstone.core.errors import ConfigError, TrainingError
from torchstone.data import augment
from torchstone.data.sampling import class_weights
from torchstone.evaluate import backbone, metrics
from torchstone.models import zoo
from torchstone.models.deployable import Deployable
from torchstone.train import device, distributed, losses, recipes, scores
from torchstone.train.job import Job
from torchstone.train.logistic import Head, Problem, best_head
from torchstone.train.observe import Epoch, Observer, Step, told_of_the_end
from torchstone.train.recipe import Recipe
from torchstone.train.state import Progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

VERSION = 1
"""Of how a head is found: part of the artifact's key."""

HEARD = {
    "label_smoothing", "loss", "focal_gamma", "class_weights", "augment", "precision", "frozen_features", "metric",
}  # fmt: skip
"""Options of a recipe that a probe acts upon, or that suit any number of epochs. Others, which change steps and layers
that it does not have, have to be those of the recipe ``probe``: it refuses what it would not listen to."""

SAME = 1e-4
"""Largest difference between the network and its backbone with the head after it, of the largest logit."""


def check(recipe: Recipe, weights: str | None) -> None:
    """Raise the ConfigError of a probe that cannot work, or of an option that it would not listen to."""
    if weights is None:
        raise ConfigError(
            "a probe trains the head alone, and the layers before it have no weights yet",
            hint="name some: --weights lite0, or a file; or train all layers: --recipe scratch",
        )
    plain = recipes.probe()
    for name, field in Recipe.model_fields.items():
        if name not in HEARD and not field.exclude and getattr(recipe, name) != getattr(plain, name):
            raise ConfigError(
                f"{name} = {getattr(recipe, name)!r} means nothing to a probe, which fits one layer to features that "
                "are computed once",
                hint="leave it out, or train that layer by steps: --recipe finetune --set freeze=backbone",
            )
    if recipe.augment not in ("none", *augment.MIRRORING):
        raise ConfigError(
            f"augment = '{recipe.augment}' means nothing to a probe, which sees each image once",
            hint=f"leave it out, or say augment={augment.MIRRORING[0]}: the mirrored image is seen, too",
        )


def ingredients(recipe: Recipe) -> list[str | int]:
    """What an artifact's key says of a probe besides the recipe."""
    where = device.device().type
    return [VERSION, where, backbone.arithmetic(recipe.precision), machine.versions().get("openvino", "")]


@told_of_the_end
def fit(
    model: Deployable,
    train: ImageSet,
    val: ImageSet,
    recipe: Recipe,
    seed: int,
    directory: Path,
    *,
    classes: Sequence[str] = (),
    policy_source: bytes | None = None,
    observers: Sequence[Observer] = (),
) -> Progress:
    """Give ``model.network`` the head that fits ``train``; all other layers stay what they are.

    Arguments and answer are those of ``loop.fit``: a training of one epoch. ``directory`` keeps the features, so that
    an interrupted call goes on. With an augmentation that mirrors images, each is learned both ways. Raises a
    ConfigError for a network whose last layer alone does not give the logits.
    """
    started = time.monotonic()
    torch.set_num_threads(machine.usable_cores())
    ranks = distributed.here()
    model.to(device.device()).eval()
    pixels = torch.from_numpy(val.images(slice(0, 2))).to(device.device())
    _check_head(model, pixels)
    outputs = model(pixels).shape[1]
    job = Job(
        model=model, train=train, val=val, recipe=recipe, seed=seed, directory=directory, classes=classes,
        outputs=outputs, crop=pixels.shape[1], device=device.device(), policy_source=policy_source, ranks=ranks,
    )  # fmt: skip
    observers = observers if ranks.first else ()
    for observer in observers:
        observer.begin(job)
    found = _fitted(job) if ranks.first else None
    if found is not None:
        found.row["seconds"] = time.monotonic() - started
        found.row["images_per_second"] = len(train) / found.row["seconds"]
    found = ranks.as_the_first(found)
    assert found is not None
    row = found.row
    _put(model.network, found.head)
    everything = np.arange(len(train))
    step = Step(
        number=0, epoch=1, rows=everything, items=everything, losses=torch.from_numpy(found.losses), lr=row["lr"],
        gradient=row["gradient"], waited=0.0, seconds=row["seconds"],
    )  # fmt: skip
    for observer in observers:
        observer.step(step)
        row.update(observer.epoch(Epoch(number=1, row=row, logits=found.logits, labels=val.labels)) or {})
    for observer in observers:
        observer.end(1, found.logits)
    model.cpu().eval()
    console.say(
        f"head on frozen features  loss {row['train_loss']:.3f}  val loss {row['val_loss']:.3f}  "
        f"val top-1 {row['val_top1']:.2f} %  {row['seconds']:.0f} s"
    )
    return Progress(epoch=1, best=scores.score(recipe.metric, row), best_epoch=1, history=[row])


def begin(model: Deployable, train: ImageSet, recipe: Recipe, seed: int, directory: Path) -> None:
    """Give ``model.network`` the head that fits ``train``, for a training by steps to begin with (``fit_head``): what
    the other layers know already is then not pulled about by a head that knows nothing yet (Kumar et al. 2022).

    ``directory`` keeps the features. A network whose last layer alone does not give the logits keeps the head that it
    has, which is said.
    """
    ranks, where = distributed.here(), device.device()
    torch.set_num_threads(machine.usable_cores())
    model.to(where).eval()
    pixels = torch.from_numpy(train.images(slice(0, 2))).to(where)
    try:
        _check_head(model, pixels)
    except ConfigError as error:
        console.say(f"note: {error.message}: it begins at random")
        return
    head = None
    if ranks.first:
        with _headless(model.network) as layer:
            forward = _forward(model, recipe, pixels.shape[1], where)
            problem = _problem(layer, train, recipe)
            vectors = features(forward, train, directory / "features-train.npy")
        head = best_head(vectors, train.labels, problem, views=1, seed=seed)
    head = ranks.as_the_first(head)
    assert head is not None
    _put(model.network, head)
    model.cpu()


@dataclass(frozen=True)
class _Fitted:
    head: Head
    row: dict[str, float]
    """Of the history."""
    losses: NDArray[np.float32]
    """float32[n], of each training image."""
    logits: NDArray[np.float32]
    """float32[n, classes] on val."""


def _fitted(job: Job) -> _Fitted:
    policy = augment.POLICIES[job.recipe.augment]
    views = 2 if policy is not None and policy.flip else 1
    with _headless(job.model.network) as layer:
        forward = _forward(job.model, job.recipe, job.crop, job.device)
        problem = _problem(layer, job.train, job.recipe)
        vectors = features(forward, job.train, job.directory / "features-train.npy", views)
        shown = features(forward, job.val, job.directory / "features-val.npy")
    labels = np.repeat(job.train.labels, views)
    head = best_head(vectors, labels, problem, views=views, seed=job.seed)
    mine, logits = head.logits(vectors), head.logits(shown)
    each = losses.per_image(torch.from_numpy(mine), torch.from_numpy(labels), job.recipe, problem.weights)
    row = {
        "epoch": 1.0,
        "train_loss": float(each.mean()),
        "train_top1": 100 * metrics.top1(labels, metrics.predicted_classes(mine)),
        **scores.val_row(logits, job.val.labels, job.outputs),
        "lr": 0.0,  # there is none
        "waited_share": 0.0,
        "gradient": 0.0,
        "l2": head.l2,
    }
    return _Fitted(head, row, each[::views].numpy(), logits)


def _check_head(model: Deployable, pixels: torch.Tensor) -> None:
    """Refuse a network whose logits are more than its last layer's answer to one vector an image."""
    with torch.inference_mode():
        expected, found = model(pixels), None
        with _headless(model.network) as layer:
            vectors = model(pixels)
        matrix = _matrix(layer)
        if vectors.ndim == 2 and vectors.shape[1] == matrix.shape[1]:
            found = functional.linear(vectors, matrix, _bias(layer))
    if found is None or found.shape != expected.shape or (found - expected).abs().max() > SAME * expected.abs().max():
        raise ConfigError(
            "this network does more than one linear layer with what its backbone finds, so that a head cannot be "
            "fitted to it",
            hint="train it by steps: --recipe finetune --set freeze=backbone",
        )


@contextmanager
def _headless(network: nn.Module) -> Iterator[nn.Module]:
    """Inside, the network gives the input of its last layer, which is the value."""
    name, _ = zoo.head(network)
    layer = backbone.take_head(network)
    try:
        yield layer
    finally:
        network.set_submodule(name, layer)


def _matrix(layer: nn.Module) -> torch.Tensor:
    """float32[classes, d], of a linear layer or a 1 × 1 convolution."""
    assert isinstance(layer.weight, torch.Tensor)
    return layer.weight.flatten(1)


def _bias(layer: nn.Module) -> torch.Tensor | None:
    return layer.bias if isinstance(layer.bias, torch.Tensor) else None


def _put(network: nn.Module, head: Head) -> None:
    """Make ``head`` the network's own."""
    _, layer = zoo.head(network)
    bias = _bias(layer)
    with torch.no_grad():
        _matrix(layer).copy_(torch.from_numpy(head.weight))
        if bias is not None:
            bias.copy_(torch.from_numpy(head.bias))


def _problem(layer: nn.Module, train: ImageSet, recipe: Recipe) -> Problem:
    """What the head ``layer`` is fitted to."""
    outputs = len(_matrix(layer))
    weights = None
    if recipe.class_weights:
        weights = torch.from_numpy(class_weights(train.labels, outputs, recipe.class_weights))
    return Problem(recipe, outputs, weights, with_bias=_bias(layer) is not None)


def _forward(model: Deployable, recipe: Recipe, crop: int, where: torch.device) -> backbone.Forward:
    """The network, whose head is off, in the fastest runtime here that takes it."""
    how = backbone.arithmetic(recipe.precision)
    if where.type != "cpu":
        return backbone.in_torch(model, how.split()[1], str(where))
    try:
        return backbone.opened(lambda: model, crop, how)
    except Exception as error:  # OpenVINO and torch's tracer have many; what is wrong with the network, torch will say
        if how.startswith("torch"):
            raise
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        console.say(f"note: OpenVINO does not take this network ({reason}): torch computes its features")
        return backbone.in_torch(model, how.split()[1])


def features(forward: backbone.Forward, images: ImageSet, path: Path, views: int = 1) -> NDArray[np.float32]:
    """float32[images * views, d], mapped from ``path``, which is made or finished if need be: an image's own vector
    and then, of two ``views``, that of its mirror image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    width = forward(images.images(slice(0, 1))).shape[1]
    shape = (len(images) * views, width)

    def from_row(row: int) -> Iterator[NDArray[np.float32]]:
        starts = range(row // views, len(images), backbone.BATCH)
        for start in console.track(starts, "features of the images", len(starts)):
            batch = images.images(slice(start, start + backbone.BATCH))
            seen = (batch, batch[:, :, ::-1])[:views]
            yield np.stack([forward(view) for view in seen], axis=1).reshape(-1, width)

    if (found := backbone.stored(path, shape)) is None:
        backbone.write(path, shape, from_row, unit=backbone.BATCH * views)
        found = backbone.stored(path, shape)
    assert found is not None
    if not np.isfinite(found.sum()):
        raise TrainingError(
            "the features of the backbone are no numbers",
            hint="are its weights whole? If they are: --set precision=f32",
        )
    return found
