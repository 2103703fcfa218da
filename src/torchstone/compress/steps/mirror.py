"""Each image is looked at twice, the second time mirrored."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from torchstone.core.artifact import identified
from torchstone.core.contracts import Step, StepContext
from torchstone.core.errors import ChainError
from torchstone.core.values import Artifact


class Mirror(Step):
    """The answer becomes the mean of the logits for the image and for its mirror image (left and right exchanged),
    inside the network, so that every export carries it.

    It is the one step that buys accuracy with time: twice the multiplications, for what other steps can then spend
    (``mirror+int8``). A network that was trained on mirrored images gains most. It is wrong for data of which left and
    right are the meaning: digits and text, arrows and hands, the side of the body on an X-ray; val and the judge
    show it, the step cannot know.

    It may stand anywhere in the part of a chain that is in torch, and once. The weights stay what they are: steps that
    train after it show the network single images as always, and choose their epoch on val by the answer of both. A
    ``student`` behind it is taught by both and looks once.
    """

    version = 1
    accepts = ("torch",)
    requires = ("torch", "safetensors")
    free = True

    def apply(
        self, artifact: Artifact, context: StepContext, config: Any, target: str | None, out_dir: Path
    ) -> Artifact:
        if artifact.mirrored:
            raise ChainError(
                f"'{artifact.architecture}' looks at the mirror image already", hint="leave the second 'mirror' out"
            )
        for name in artifact.files:
            shutil.copy2(artifact.directory / name, out_dir / name)
        return identified(artifact.model_copy(update={"mirrored": True}), out_dir)
