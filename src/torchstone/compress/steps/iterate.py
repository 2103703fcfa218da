"""Pruning in rounds, with training in between."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from pydantic import Field

from torchstone.compress.pruning_options import Pruning
from torchstone.compress.tuning import Tuning, recipe_of
from torchstone.core import files
from torchstone.core.artifact import CHECKPOINTS, noted
from torchstone.core.contracts import Needs, Step, StepContext
from torchstone.core.values import Artifact

ROUNDS = "rounds"
"""Folder of the rounds, until the artifact stands."""
HOW = {"importance", "scope", "round_to"}
"""Options that it shares with ``prune``."""


class Iterate(Step):
    """``iterate=ROUNDS:macs=0.5``: prunes towards that share of the multiplications, by the same factor in each round,
    and fine-tunes for ``epochs`` after each.

    A channel that is weak now may matter once others have left, and a network that loses little at a time finds its
    way back. Whether that is worth more than ``prune:macs=0.5+finetune`` with as many epochs is for the judge to say.
    Widths are rounded (``round_to``, as in ``prune``) in the last round; before that they may be anything.
    """

    version = 1
    accepts = ("torch",)
    requires = ("torch", "safetensors", "torch_pruning")
    value_option = "rounds"
    needs_val = True
    resumes = True
    place = "shape"

    class Config(Pruning, Tuning):
        rounds: int = Field(default=3, ge=1, description="of pruning and fine-tuning")
        macs: float = Field(default=0.5, gt=0, lt=1, description="share of the multiply-accumulates that stays")
        epochs: int = Field(default=1, ge=1, description="passes over the training part in each round")

    def needs(self, config: Any) -> Needs:
        return Needs(epochs=config.rounds * config.epochs)

    def sketch(self, config: Any) -> str | None:
        how = "".join(f",{name}={getattr(config, name)}" for name in sorted(config.model_fields_set & HOW))
        return f"prune:macs={config.macs:g}{how}"

    def apply(
        self, artifact: Artifact, context: StepContext, config: Any, target: str | None, out_dir: Path
    ) -> Artifact:
        from torchstone.compress import pruning
        from torchstone.models import cost, store
        from torchstone.train import stage

        assert context.val is not None
        crop = artifact.preprocess.crop
        model = start = store.load(artifact)
        whole = cost.macs_of(start, crop)
        last = config.round_to or pruning.rounding(start, pruning.ratio_of(config.macs))
        recipe = recipe_of(config, config.epochs, len(context.train))
        for number in range(1, config.rounds + 1):
            place = out_dir / ROUNDS / str(number)
            place.mkdir(parents=True, exist_ok=True)
            if (place / store.WEIGHTS).exists():
                model = store.load(artifact.model_copy(update={"directory": place}))
                continue
            how = config.model_copy(update={"round_to": last if number == config.rounds else 1})
            macs = int(whole * config.macs ** (number / config.rounds))
            model = pruning.to_macs(model, macs, how, context.train, crop)
            stage.fit_into(model, context.train, context.val, recipe, context.seed + number, place)
            store.save(model.network, place / store.WEIGHTS)
            files.remove(place / CHECKPOINTS)
        for file in (
            out_dir / ROUNDS / str(config.rounds)
        ).iterdir():  # the history of the last round is that of the artifact
            if file.name != store.WEIGHTS:
                shutil.move(file, out_dir / file.name)
        made = stage.save_torch(model, artifact, context.calib, out_dir)
        files.remove(out_dir / ROUNDS)
        return noted(made, f"iterate: {config.rounds} rounds to {pruning.described(start, model, crop)}")
