"""Train the model that everything else is compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchstone.config import Settings
from torchstone.core import files, registry
from torchstone.core.errors import MissingPackageError
from torchstone.core.values import Artifact
from torchstone.stages.read import Data, read

if TYPE_CHECKING:
    from torchstone.train.stage import TrainRequest


def train(settings: Settings) -> Artifact:
    """Read, split and train; what stands there already is kept."""
    request = requested(settings)
    with files.locked(settings.run.root):
        return trained(request, read(settings))


def requested(settings: Settings) -> TrainRequest:
    """What these settings ask to train; a UserError where no such model or weights exist, before any image is read."""
    missing = registry.missing_packages(("torch", "safetensors"))
    if missing:
        raise MissingPackageError("training", missing)
    from torchstone.train import recipe, stage

    base = recipe.finetune() if settings.weights else recipe.scratch()
    request = stage.TrainRequest(
        model=settings.model,
        weights=settings.weights,
        image_size=settings.image_size,
        small_input=settings.small_input,
        channels=settings.channels,
        recipe=base.model_copy(update=settings.recipe_options),
        seed=settings.seed,
    )
    stage.check(request)
    return request


def trained(request: TrainRequest, data: Data) -> Artifact:
    """The trained artifact of this request."""
    from torchstone.train import stage

    return stage.train(request, data.catalog, data.split, data.run)
