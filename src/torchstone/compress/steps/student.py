"""Another, smaller architecture that learns from the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from torchstone.compress.distilling import Distilling, check_options, teacher_of, teaching_of, told, views_of
from torchstone.compress.tuning import recipe_of
from torchstone.core import registry, seeding
from torchstone.core.artifact import noted
from torchstone.core.contracts import Needs, Step, StepContext
from torchstone.core.errors import ChainError
from torchstone.core.values import Artifact
from torchstone.models import families


class Student(Step):
    """``student=NAME``: a network of that name is trained from fresh weights, with the model before it as its teacher
    (or ``teacher=DIRECTORY``, any artifact of the run). It sees the same pixels. ``student=resnet18`` finds the name
    where ``--model`` does; where two libraries have it, a slash names one, ``student=torchvision/resnet18``, since a
    chain keeps the colon for options.

    ``student=NAME:alone=true`` is the honest rival: the same student without a teacher, for as many epochs more as the
    teacher's answers would have cost in multiplications (a step counts three times the forward pass). Only what
    distillation gains over that is the teacher's.
    """

    version = 1
    accepts = ("torch",)
    requires = ("torch", "safetensors")
    value_option = "name"
    needs_val = True
    resumes = True
    place = "shape"
    replaces = True

    class Config(Distilling):
        name: str = Field(description="a network of the zoo, as for --model, with a slash for the colon")
        epochs: int = Field(default=30, ge=0, description="passes over the training part; 0: fresh weights, to time it")
        lr: float = Field(default=2e-3, gt=0, description="peak learning rate")
        alone: bool = Field(default=False, description="no teacher, and its time spent on more epochs")

    def check(self, config: Any, target: str | None) -> None:
        check_options("student", config)
        if config.alone and {"teacher", "method", "temperature", "share", "alpha", "beta"} & config.model_fields_set:
            raise ChainError("a student that learns alone has no teacher", hint="leave alone=true out, or the teacher")
        if not registry.missing_packages(self.requires):
            _architecture(config)

    def remark(self, config: Any, origin: Artifact, after: Sequence[str]) -> str | None:
        same = _architecture(config) == origin.architecture
        return f"the student is the network that teaches it, '{origin.architecture}', and as large" if same else None

    def ingredients(self, config: Any, origin: Artifact) -> dict[str, Any]:
        teacher = teacher_of(config)
        return {"teacher": teacher.id} if teacher else {}

    def needs(self, config: Any) -> Needs:
        return Needs(own_epochs=config.epochs, answers=0 if config.alone else views_of(config, config.epochs))

    def ranges(self, artifact: Artifact) -> Mapping[str, Any] | None:
        names = [member.name.replace(":", "/") for member in families.smaller(artifact.architecture)]
        return {"name": names, "epochs": {"low": 15, "high": 60, "log": True}} if names else None

    def sketch(self, config: Any) -> str | None:
        return f"student={config.name}:epochs=0" if config.epochs else None

    def apply(
        self, artifact: Artifact, context: StepContext, config: Any, target: str | None, out_dir: Path
    ) -> Artifact:
        import torch

        from torchstone.models import cost, store, zoo
        from torchstone.models.deployable import Deployable
        from torchstone.train import recipes, stage, teaching

        assert context.val is not None
        architecture = _architecture(config)
        preprocess = artifact.preprocess
        options = {
            "channels": preprocess.channels,
            "small_input": ":" in architecture and preprocess.crop <= 2 * zoo.SMALL_SIZE,
        }
        torch.manual_seed(seeding.seed_of(context.seed, "weights"))
        model = Deployable(zoo.build(architecture, classes=len(artifact.classes), **options), preprocess)
        described = artifact.model_copy(
            update={
                "architecture": architecture,
                "architecture_options": options,
                "precision": "f32",
                "mirrored": False,
            }
        )
        if not config.epochs:
            return stage.save_torch(model, described, context.calib, out_dir)
        lesson = teaching_of(config, config.epochs, teacher_of(config) or artifact, artifact, context)
        epochs, seconds = config.epochs, 0.0
        if config.alone:
            macs = [cost.macs_of(one, preprocess.crop) for one in (store.load(artifact), model)]
            epochs = teaching.alone(config.epochs, lesson.views, *macs)
        else:
            seconds = lesson.prepare()
        recipe = recipe_of(config, epochs, len(context.train), recipes.scratch())
        stage.fit_into(
            model, context.train, context.val, recipe, context.seed, out_dir, teaching=None if config.alone else lesson
        )
        made = stage.save_torch(model, described, context.calib, out_dir)
        alone = f"student: {architecture} alone, {epochs} epochs for the time of {config.epochs} with a teacher"
        return noted(made, alone if config.alone else told(f"student {architecture}", lesson, seconds))


def _architecture(config: Any) -> str:
    """The full name of the network."""
    from torchstone.models import zoo

    return zoo.resolve(config.name.replace("/", ":", 1))
