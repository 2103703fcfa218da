"""Another decoder of images in front of the same weights."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from torchstone.core.artifact import identified
from torchstone.core.contracts import Step, StepConfig, StepContext
from torchstone.core.errors import ChainError
from torchstone.core.values import Artifact


class Decoder(Step):
    """``decoder=NAME``: the model's images are decoded by another library from here on.

    Nothing is trained or calibrated anew: ``simplejpeg-torch`` makes an image ready in less time and gives slightly
    different pixels, and what that costs in accuracy is judged like any other change. The judge's clock times the model
    alone, so the time that it saves is not in the verdict. Steps that follow learn from the new pixels.
    """

    version = 1
    accepts = ("torch", "onnx", "openvino")
    requires = ("simplejpeg", "torch")
    value_option = "name"
    free = True

    class Config(StepConfig):
        name: Literal["simplejpeg-torch", "pillow"] = Field(
            default="simplejpeg-torch", description="a decoder of data/decode.py"
        )

    def apply(
        self, artifact: Artifact, context: StepContext, config: Any, target: str | None, out_dir: Path
    ) -> Artifact:
        from torchstone.data.preprocess import with_decoder

        if artifact.preprocess.decoder == config.name:
            raise ChainError(
                f"the images of '{artifact.architecture}' are decoded by {config.name} already",
                hint="leave 'decoder' out",
            )
        for name in artifact.files:
            shutil.copy2(artifact.directory / name, out_dir / name)
        preprocess = with_decoder(artifact.preprocess, config.name)
        return identified(artifact.model_copy(update={"preprocess": preprocess}), out_dir)
