"""The training stage: from a split data set and a request to an artifact."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field

from torchstone.core import artifact as artifacts
from torchstone.core import console, files, seeding
from torchstone.core.contracts import ImageSet
from torchstone.core.errors import ConfigError, TrainingError
from torchstone.core.run import Run, slug
from torchstone.core.values import Artifact, Candidate, Catalog, MadeBy, Preprocess, Split, Value
from torchstone.data import augment, sampling
from torchstone.data.cache import open_images
from torchstone.data.preprocess import default_preprocess
from torchstone.models import store, weights, zoo
from torchstone.models.deployable import Deployable
from torchstone.runtimes import golden
from torchstone.train import device, distributed, freezing, initial, loop, probe, range_test
from torchstone.train.checkpoint import Store
from torchstone.train.observe import Observer
from torchstone.train.recipe import Recipe
from torchstone.train.resources import Resources
from torchstone.train.teaching import Teaching
from torchstone.train.telemetry import Telemetry

VERSION = 4
PACKAGES = ("torch", "torchvision", "timm", "numpy", "PIL")


class TrainRequest(Value):
    """What to train, and from what."""

    model: str | None = Field(default=None, description="a name of the zoo; None: that of packaged weights")
    weights: str | None = Field(default=None, description="a file, or lite0, lite1, lite2")
    image_size: int | None = Field(default=None, gt=7, description="pixels; None: what the network was designed for")
    small_input: bool = Field(default=False, description="adapt the first layers to images of about 32 pixels")
    channels: int = Field(default=3, description="1: the network sees the luma alone")
    recipe: Recipe = Recipe()
    seed: int = 0


def train(
    request: TrainRequest, catalog: Catalog, split: Split, run: Run, *, observers: Sequence[Observer] = ()
) -> Artifact:
    """The trained artifact of this request in ``run.artifacts``: the one that stands there, or made now (an
    interrupted training goes on), by several processes where ``distributed`` joined them. Raises UserErrors for what
    cannot be built before any image is decoded."""
    policy_source = augment.source_of(request.recipe.augment)
    draft = _draft(request, catalog, split, policy_source)
    ranks = distributed.here()

    def fitted(directory: Path) -> tuple[Deployable, ImageSet]:
        """The trained model and the calibration part: what all processes do together."""
        model, fresh = untrained(request, catalog)
        sets = ranks.one_by_one(
            lambda: {
                part: open_images(catalog, split, part, draft.preprocess, run.cache)
                for part in ("train", "val", "calib")
            }
        )
        if request.recipe.epochs:
            place = directory / artifacts.CHECKPOINTS
            if not Store(place).names():
                _begin(model, sets["train"], request, fresh, place)
            fit_into(
                model, sets["train"], sets["val"], request.recipe, request.seed, directory,
                classes=catalog.classes, policy_source=policy_source, observers=observers,
            )  # fmt: skip
        return model, sets["calib"]

    def make(directory: Path) -> Artifact:
        ranks.as_the_first(directory)
        model, calib = fitted(directory)
        artifact = save_torch(model, draft, calib, directory)
        golden.seal(Candidate(name="torch", artifact=artifact, runtime="torch"), calib)
        return artifact

    place = _place(draft, run)
    if not ranks.as_the_first((place / "artifact.json").exists()):
        if ranks.first:
            artifacts.build(place, make, resume=True)
        else:
            fitted(ranks.as_the_first(place))
        ranks.as_the_first(None)  # until it stands
    return artifacts.load_artifact(place)


def standing(request: TrainRequest, catalog: Catalog, split: Split, run: Run) -> Artifact | None:
    """The trained artifact of this request, where it stands."""
    place = _place(_draft(request, catalog, split, augment.source_of(request.recipe.augment)), run)
    return artifacts.load_artifact(place) if (place / "artifact.json").exists() else None


def _place(draft: Artifact, run: Run) -> Path:
    return run.artifacts / f"{slug(draft.architecture.rpartition(':')[2])}-{draft.key[:10]}"


def _draft(request: TrainRequest, catalog: Catalog, split: Split, policy_source: bytes | None) -> Artifact:
    """The artifact of this request without its files, and with the key that all that goes into it gives."""
    recipe, architecture = request.recipe, architecture_of(request)
    options = {"channels": request.channels, "small_input": request.small_input}
    preprocess = preprocess_for(request, architecture)
    sampling.check_classes(recipe.sampler, catalog.classes)
    if recipe.frozen_features:
        probe.check(recipe, request.weights)
    key = artifacts.key_of(
        {
            "step": ["train", VERSION],
            "architecture": [architecture, options],
            "weights": _weights_digest(request.weights),
            "preprocess": preprocess.digest(),
            "classes": catalog.classes,
            "recipe": recipe.model_dump(mode="json"),
            "augment": augment.identity(recipe.augment, policy_source),
            "arithmetic": device.arithmetic(recipe.precision),
            **({"probe": probe.ingredients(recipe)} if recipe.frozen_features or recipe.fit_head else {}),
            "seed": request.seed,
            "split": split.fingerprint,
        },
        PACKAGES,
    )
    return Artifact(
        id="",
        key=key,
        format="torch",
        files={},
        architecture=architecture,
        architecture_options=options,
        classes=catalog.classes,
        preprocess=preprocess,
        made_by=MadeBy(step="train", version=VERSION, config=request.model_dump(mode="json")),
        split_fingerprint=split.fingerprint,
    )


def untrained(request: TrainRequest, catalog: Catalog) -> tuple[Deployable, tuple[str, ...]]:
    """The network as the training of this request begins with it, the same each time; and the tensors that begin at
    random although others come from given weights."""
    architecture = architecture_of(request)
    options = {"channels": request.channels, "small_input": request.small_input}
    torch.manual_seed(seeding.seed_of(request.seed, "weights"))
    network = zoo.build(architecture, classes=len(catalog.classes), **options)
    model = Deployable(network, preprocess_for(request, architecture))
    fresh = _start_from(model, request, request.weights) if request.weights else None
    initial.initialise(model.network, request.recipe.init, fresh)
    return model, fresh or ()


def _begin(
    model: Deployable, train_set: ImageSet, request: TrainRequest, fresh: tuple[str, ...], directory: Path
) -> None:
    """What the training images say of the weights that a training begins with."""
    recipe = request.recipe
    if recipe.whiten and not request.weights:
        initial.whiten(model, train_set)
    if recipe.fit_head and fresh:
        probe.begin(model, train_set, recipe, request.seed, directory)


def curve_of(request: TrainRequest, catalog: Catalog, split: Split, run: Run) -> range_test.Curve:
    """The learning-rate range test of this request; nothing but the cache of images is written."""
    sampling.check_classes(request.recipe.sampler, catalog.classes)
    model, fresh = untrained(request, catalog)
    images = open_images(catalog, split, "train", preprocess_for(request, architecture_of(request)), run.cache)
    with tempfile.TemporaryDirectory() as scratch:
        _begin(model, images, request, fresh, Path(scratch))
    return range_test.find(
        model,
        images,
        request.recipe,
        request.seed,
        classes=catalog.classes,
        policy_source=augment.source_of(request.recipe.augment),
    )


def check(request: TrainRequest) -> None:
    """Raise the UserError of a request that names no network, or weights that are not there."""
    if request.weights:
        weights.locate(request.weights)
    if request.recipe.frozen_features:
        probe.check(request.recipe, request.weights)
    for option in ("freeze_norms", "fit_head"):
        if getattr(request.recipe, option) and not request.weights:
            raise ConfigError(
                f"{option} builds on what the layers know already, and these have no weights yet",
                hint="name some: --weights lite0, or a file; or train them from nothing: --recipe scratch",
            )
    architecture = architecture_of(request)
    if request.recipe.freeze:
        with torch.device("meta"):  # the layers' names are all that counts
            network = zoo.build(architecture, classes=2, channels=request.channels, small_input=request.small_input)
        freezing.frozen_names(network, request.recipe.freeze)
    preprocess = preprocess_for(request, architecture)
    augment.check_policy(request.recipe.augment)
    if request.recipe.augment not in augment.POLICIES:
        augment.rehearse(request.recipe.augment, preprocess)


def fit_into(
    model: Deployable,
    train_set: ImageSet,
    val: ImageSet,
    recipe: Recipe,
    seed: int,
    directory: Path,
    *,
    classes: Sequence[str] = (),
    policy_source: bytes | None = None,
    observers: Sequence[Observer] = (),
    teaching: Teaching | None = None,
) -> None:
    """Train ``model`` in place and leave ``history.parquet`` and what the coach says in ``directory``. ``classes`` are
    the names that a sampler's weights go by, ``policy_source`` is what the file of an augmentation policy holds,
    ``teaching`` is a teacher that is prepared (not for a recipe with frozen features)."""
    place = directory / artifacts.CHECKPOINTS
    telemetry = Telemetry()
    watching = (telemetry, Resources(directory / "resources.parquet"), *observers)
    try:
        fit = probe.fit if recipe.frozen_features else functools.partial(loop.fit, teaching=teaching)
        progress = fit(
            model, train_set, val, recipe, seed, place, classes=classes, policy_source=policy_source, observers=watching
        )
    except TrainingError:
        if telemetry.broken:
            telemetry.keep(place)
        raise
    if distributed.here().first:
        loop.write_history(directory / "history.parquet", progress)
        telemetry.keep(directory, progress.best_epoch)


def save_torch(model: Deployable, draft: Artifact, calib: ImageSet, directory: Path) -> Artifact:
    """Save the model's weights, proven to reload, and describe them."""
    pixels = calib.images(seeding.sample_rows(calib.labels, golden.IMAGES, "golden"))
    store.save_proven(model, draft, directory, torch.from_numpy(np.ascontiguousarray(pixels)))
    return artifacts.identified(draft, directory)


def architecture_of(request: TrainRequest) -> str:
    """The full name of the network to build."""
    packaged = weights.PACKAGED.get(request.weights or "")
    if packaged is None:
        if request.model is None:
            raise ConfigError(f"'{request.weights}' does not say of which network it is", hint="name it with --model")
        return zoo.resolve(request.model)
    if request.model and zoo.resolve(request.model) != packaged.architecture:
        raise ConfigError(
            f"the weights '{request.weights}' are those of {packaged.architecture}, not of '{request.model}'",
            hint="leave --model out",
        )
    return packaged.architecture


def preprocess_for(request: TrainRequest, architecture: str) -> Preprocess:
    """The preprocessing that the weights were trained with, at the size asked for."""
    native = zoo.native_input(architecture)
    packaged = weights.PACKAGED.get(request.weights or "")
    crop = request.image_size or (packaged.crop if packaged else native.crop)
    if request.small_input and not request.image_size:
        crop = zoo.SMALL_SIZE
    resize = None if crop <= 64 else round(native.resize * crop / native.crop)
    numbers: dict[str, Any] = {"mean": native.mean, "std": native.std}
    if packaged:
        numbers = {"mean": packaged.mean, "std": packaged.std}
    interpolation: Any = native.interpolation
    channels: Any = request.channels
    return default_preprocess(crop, resize=resize, interpolation=interpolation, channels=channels, **numbers)


def _start_from(model: Deployable, request: TrainRequest, source: str) -> tuple[str, ...]:
    """Copy the weights that were asked for; returns the names of those that start fresh, after saying so."""
    fresh = weights.load_into(model.network, weights.read(source), source)
    if fresh and not request.recipe.epochs:
        raise ConfigError(
            f"'{source}' has another number of classes, so its head starts fresh and has to be trained",
            hint="give --epochs 1 or more",
        )
    if fresh:
        console.say(f"weights of {source}; fresh: {', '.join(fresh)}")
    return fresh


def _weights_digest(source: str | None) -> str | None:
    if source is None or source in weights.PACKAGED:
        return source
    path = Path(source)
    return files.sha256(path) if path.is_file() else source
