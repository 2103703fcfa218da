"""The same network on smaller images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from torchstone.compress.tuning import Tuning, recipe_of
from torchstone.core.contracts import Needs, Step, StepContext
from torchstone.core.errors import ChainError
from torchstone.core.values import Artifact, Preprocess

if TYPE_CHECKING:
    from torchstone.models.deployable import Deployable

SMALLEST, STRIDE = 96, 32
"""Pixels below which a photo has too little to see; what most networks halve evenly."""


class Resolution(Step):
    """``resolution=PIXELS``: the network sees images of that side, and learns for a few epochs what they look like.

    Half the side is a quarter of the multiplications, at no cost of its own: the rival that a compression has to beat.
    Fewer pixels also make the image ready sooner, which is not in the judge's times. With ``epochs=0`` the weights stay
    as they are; objects then appear in another size than they were learnt in (Touvron et al. 2019), and accuracy falls
    by more than the pixels are worth. Networks that end in a layer for one size of image cannot follow.
    """

    version = 1
    accepts = ("torch",)
    requires = ("torch", "safetensors")
    value_option = "pixels"
    resumes = True
    place = "shape"

    class Config(Tuning):
        pixels: int = Field(ge=8, description="side of the images that the network sees")
        epochs: int = Field(default=2, ge=0, description="passes over the training part; 0: the weights stay")

    def is_free(self, config: Any) -> bool:
        return config.epochs == 0

    def wants_val(self, config: Any) -> bool:
        return config.epochs > 0

    def needs(self, config: Any) -> Needs:
        return Needs(epochs=config.epochs)

    def ranges(self, artifact: Artifact) -> Mapping[str, Any] | None:
        crop = artifact.preprocess.crop
        sides = [side for side in range(SMALLEST, crop, STRIDE) if 2 * side >= crop]
        # What it learns of them is the next place's to say.
        return {"pixels": sides, "epochs": 0} if sides else None

    def sketch(self, config: Any) -> str | None:
        return f"resolution={config.pixels}:epochs=0" if config.epochs else None

    def fits(self, config: Any, origin: Artifact) -> None:
        self._model(config, origin)

    def apply(
        self, artifact: Artifact, context: StepContext, config: Any, target: str | None, out_dir: Path
    ) -> Artifact:
        from torchstone.train import stage

        seen, model = self._model(config, artifact)
        here = context.at(seen.preprocess)
        if config.epochs:
            assert here.val is not None
            options = recipe_of(config, config.epochs, len(here.train))
            stage.fit_into(model, here.train, here.val, options, context.seed, out_dir)
        return stage.save_torch(model, seen, here.calib, out_dir)

    def _model(self, config: Any, artifact: Artifact) -> tuple[Artifact, Deployable]:
        """The network, and the artifact that it is with images of the other size."""
        import torch

        from torchstone.models import store, zoo

        before = artifact.preprocess
        if config.pixels == before.crop:
            raise ChainError(f"'{artifact.architecture}' sees {before.crop} pixels already", hint="name another size")
        seen = artifact.model_copy(update={"preprocess": resized(before, config.pixels)})
        model = store.load(seen)
        try:
            with torch.inference_mode():
                model.network(zoo.input_like(config.pixels, before.channels))
        except RuntimeError as error:
            why = str(error).splitlines()[0]
            raise ChainError(
                f"'{artifact.architecture}' does not take images of {config.pixels} pixels: {why}",
                hint="its layers are for one size; 'student' trains another network",
            ) from None
        return seen, model


def resized(preprocess: Preprocess, pixels: int) -> Preprocess:
    """The same view of an image with a crop of another side: what is cut off at its edges stays the same share."""
    resize = max(pixels, round(preprocess.resize * pixels / preprocess.crop))
    return preprocess.model_copy(update={"crop": pixels, "resize": resize})
