"""Train an artifact further: what makes up for a step that hurt."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from torchstone.compress.tuning import Tuning, recipe_of
from torchstone.core.contracts import Needs, Step, StepContext
from torchstone.core.values import Artifact


class Finetune(Step):
    """``finetune=EPOCHS``: the whole network, AdamW, warm-up and cosine; the best epoch on val is kept."""

    version = 2
    accepts = ("torch",)
    requires = ("torch", "safetensors")
    value_option = "epochs"
    needs_val = True
    resumes = True
    place = "training"

    class Config(Tuning):
        epochs: int = Field(default=2, ge=1, description="passes over the training part")

    def needs(self, config: Any) -> Needs:
        return Needs(epochs=config.epochs)

    def ranges(self, artifact: Artifact) -> Mapping[str, Any] | None:
        return {"epochs": {"low": 1, "high": 8, "log": True}, "lr": {"low": 1e-4, "high": 2e-3, "log": True}}

    def sketch(self, config: Any) -> str | None:
        return ""

    def apply(
        self, artifact: Artifact, context: StepContext, config: Any, target: str | None, out_dir: Path
    ) -> Artifact:
        from torchstone.models import store
        from torchstone.train import stage

        assert context.val is not None
        model = store.load(artifact)
        options = recipe_of(config, config.epochs, len(context.train))
        stage.fit_into(model, context.train, context.val, options, context.seed, out_dir)
        return stage.save_torch(model, artifact, context.calib, out_dir)
