"""Train an artifact further, with a better model's answers to go by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from torchstone.compress.distilling import Distilling, check_options, teacher_of, teaching_of, told, views_of
from torchstone.compress.tuning import recipe_of
from torchstone.core.artifact import noted
from torchstone.core.contracts import Needs, Step, StepContext
from torchstone.core.values import Artifact


class Distill(Step):
    """``distill=EPOCHS``: as ``finetune``, but the network also learns what a teacher answers for each image: by
    default the model that the chain began with (``prune=0.5+distill=10``), or any artifact of the run
    (``teacher=DIRECTORY``).

    It mends what another step broke. How much more than ``finetune`` for the same time is for the judge to say: a good
    part of what is reported of distillation is the longer training.
    """

    version = 1
    accepts = ("torch",)
    requires = ("torch", "safetensors")
    value_option = "epochs"
    needs_val = True
    resumes = True
    place = "training"

    class Config(Distilling):
        epochs: int = Field(default=4, ge=1, description="passes over the training part")

    def check(self, config: Any, target: str | None) -> None:
        check_options("distill", config)

    def ingredients(self, config: Any, origin: Artifact) -> dict[str, Any]:
        return {"teacher": (teacher_of(config) or origin).id}

    def needs(self, config: Any) -> Needs:
        return Needs(epochs=config.epochs, answers=views_of(config, config.epochs))

    def sketch(self, config: Any) -> str | None:
        return ""

    def apply(
        self, artifact: Artifact, context: StepContext, config: Any, target: str | None, out_dir: Path
    ) -> Artifact:
        from torchstone.models import store
        from torchstone.train import stage

        assert context.val is not None
        teacher = teacher_of(config) or context.origin
        teaching = teaching_of(config, config.epochs, teacher, artifact, context)
        seconds = teaching.prepare()
        model = store.load(artifact)
        recipe = recipe_of(config, config.epochs, len(context.train))
        stage.fit_into(model, context.train, context.val, recipe, context.seed, out_dir, teaching=teaching)
        return noted(stage.save_torch(model, artifact, context.calib, out_dir), told("distill", teaching, seconds))
