"""Options of the steps in which a network learns from another one, and how they find their teacher."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from torchstone.compress.tuning import Tuning
from torchstone.core.artifact import load_artifact
from torchstone.core.contracts import StepContext
from torchstone.core.errors import ChainError
from torchstone.core.values import Artifact

if TYPE_CHECKING:
    from torchstone.train.teaching import Teaching


class Distilling(Tuning):
    """How a student learns."""

    teacher: Path | None = Field(
        default=None, description="directory of the artifact that teaches, in any format and size; None: see the step"
    )
    method: Literal["kd", "dkd"] = Field(
        default="kd", description="kd: softened probabilities (Hinton et al. 2015); dkd: decoupled (Zhao et al. 2022)"
    )
    temperature: float = Field(default=4.0, gt=0, description="by which logits are divided before they are compared")
    share: float = Field(
        default=0.9, ge=0, le=1, description="of kd: the teacher's part of the loss; the labels' is the rest"
    )
    alpha: float = Field(default=1.0, ge=0, description="of dkd: weight of how sure the teacher is of the right class")
    beta: float = Field(default=8.0, ge=0, description="of dkd: weight of how it ranks the other classes")
    views: int = Field(
        default=8,
        ge=0,
        description="ways in which an image is varied, each of which the teacher answers; 0: one an epoch",
    )


OPTION_OF = {"share": "kd", "alpha": "dkd", "beta": "dkd"}
"""The method that an option belongs to."""


def check_options(name: str, config: Any) -> None:
    """Raise the ChainError of an option that the method does not have."""
    for option, its in OPTION_OF.items():
        if option in config.model_fields_set and config.method != its:
            raise ChainError(f"'{name}' by {config.method} has no {option}", hint=f"it is an option of method={its}")


def teacher_of(config: Distilling) -> Artifact | None:
    """The artifact that was named, after checking its files; None where none was."""
    return None if config.teacher is None else load_artifact(config.teacher)


def views_of(config: Distilling, epochs: int) -> int:
    """Ways in which a training of so many epochs varies an image: what the teacher answers."""
    return 1 if config.augment == "none" else min(config.views or epochs, epochs)


def teaching_of(
    config: Distilling, epochs: int, teacher: Artifact, student: Artifact, context: StepContext
) -> Teaching:
    """``teacher`` with the options of a training of ``epochs``; it sees its images at its own size. Raises a ChainError
    where it cannot teach."""
    from torchstone.train.teaching import Distillation, Teaching, check_teacher

    check_teacher(teacher, student, config.augment)
    return Teaching(
        teacher=teacher,
        images=context.at(teacher.preprocess).train,
        distillation=Distillation(
            method=config.method,
            temperature=config.temperature,
            share=config.share,
            alpha=config.alpha,
            beta=config.beta,
        ),
        views=views_of(config, epochs),
        policy=config.augment,
        cache=context.cache,
    )


def told(name: str, teaching: Teaching, seconds: float) -> str:
    """The note of who taught, and what asking it took."""
    chain = teaching.teacher.chain or "as trained"
    views = f"{teaching.views} view{'s' if teaching.views > 1 else ''}"
    return (
        f"{name}: taught by {teaching.teacher.architecture} ({chain}), which answered {views} of "
        f"{len(teaching.images):,} images in {seconds:.0f} s"
    )
