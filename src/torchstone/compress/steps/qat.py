"""Quantisation-aware training: what makes a network easy to round."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from torchstone.compress.tuning import Tuning, recipe_of
from torchstone.core.contracts import Needs, Step, StepContext
from torchstone.core.values import Artifact


class Qat(Step):
    """``qat=EPOCHS+int8``: the network is fine-tuned while its weights and the inputs of its layers are rounded to
    eight bits, and learns to be right all the same.

    What comes out is an ordinary network in float32, for either runtime: ``int8`` after it calibrates and quantises as
    always and loses less. Without ``int8`` behind it nothing is smaller or faster. It takes as long as ``finetune``, in
    float32 even where BF16 would be faster; where ``int8`` alone keeps the accuracy, it is not worth that.
    """

    version = 1
    accepts = ("torch",)
    requires = ("torch", "safetensors")
    value_option = "epochs"
    needs_val = True
    resumes = True
    place = "training"

    class Config(Tuning):
        epochs: int = Field(default=2, ge=1, description="passes over the training part")
        lr: float = Field(default=1e-4, gt=0, description="peak learning rate")

    def remark(self, config: Any, origin: Artifact, after: Sequence[str]) -> str | None:
        return None if "int8" in after else "'qat' makes nothing smaller or faster without 'int8' behind it"

    def needs(self, config: Any) -> Needs:
        return Needs(epochs=config.epochs)

    def sketch(self, config: Any) -> str | None:
        return ""

    def apply(
        self, artifact: Artifact, context: StepContext, config: Any, target: str | None, out_dir: Path
    ) -> Artifact:
        from torchstone.compress.fake_quantisation import rounded
        from torchstone.models import store
        from torchstone.train import recipes, stage

        assert context.val is not None
        model = store.load(artifact)
        # BF16 has no more bits than INT8: what is rounded would be rounded twice.
        recipe = recipes.changed(recipe_of(config, config.epochs, len(context.train)), {"precision": "f32"})
        with rounded(model.network):
            stage.fit_into(model, context.train, context.val, recipe, context.seed, out_dir)
        return stage.save_torch(model, artifact, context.calib, out_dir)
