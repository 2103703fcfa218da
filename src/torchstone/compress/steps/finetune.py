"""Train an artifact further: what makes up for a step that hurt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from torchstone.core.contracts import Step, StepConfig, StepContext
from torchstone.core.values import Artifact
from torchstone.data.augment import NamedPolicy


class Finetune(Step):
    """``finetune=EPOCHS``: the whole network, AdamW, warm-up and cosine; the best epoch on val is kept."""

    version = 2
    accepts = ("torch",)
    requires = ("torch", "safetensors")
    value_option = "epochs"
    needs_val = True
    resumes = True

    class Config(StepConfig):
        epochs: int = Field(default=2, ge=1, description="passes over the training part")
        lr: float = Field(default=4e-4, gt=0, description="peak learning rate")
        batch: int = Field(default=64, ge=2, description="images a step; as many as there are, at most this")
        augment: NamedPolicy = Field(default="light", description="a policy of data/augment")

    def apply(
        self, artifact: Artifact, context: StepContext, config: Any, target: str | None, out_dir: Path
    ) -> Artifact:
        from torchstone.models import store
        from torchstone.train import recipes, stage

        assert context.val is not None
        model = store.load(artifact)
        given = {name: getattr(config, name) for name in ("epochs", "lr", "augment")}
        batch = min(config.batch, len(context.train))
        options = recipes.changed(recipes.finetune(), {**given, "batch": batch, "patience": config.epochs})
        stage.fit_into(model, context.train, context.val, options, context.seed, out_dir)
        return stage.save_torch(model, artifact, context.calib, out_dir)
