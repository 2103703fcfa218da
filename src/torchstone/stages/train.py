"""Train the model that everything else is compared with."""

from __future__ import annotations

from torchstone.config import Settings
from torchstone.core import files, registry
from torchstone.core.errors import MissingPackageError
from torchstone.core.values import Artifact
from torchstone.stages.read import Data, read


def train(settings: Settings) -> Artifact:
    """Read, split and train; what stands there already is kept."""
    with files.locked(settings.run.root):
        return trained(settings, read(settings))


def trained(settings: Settings, data: Data) -> Artifact:
    """The trained artifact of these settings."""
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
    return stage.train(request, data.catalog, data.split, data.run)
