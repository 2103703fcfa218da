"""TensorFlow Lite, for phones and microcontrollers: what LiteRT opens."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from torchstone.core.artifact import identified
from torchstone.core.contracts import Step, StepContext
from torchstone.core.errors import ChainError
from torchstone.core.values import Artifact


class Tflite(Step):
    """Exports a torch artifact by LiteRT-Torch to ``model.tflite`` in float32: uint8 NHWC in, normalisation inside,
    logits out, one image a call. What was trained here is quantised for other runtimes; a quantised TFLite file comes
    from elsewhere, by ``torchstone import``."""

    version = 1
    accepts = ("torch",)
    produces = "tflite"
    requires = ("torch", "safetensors", "litert_torch", "ai_edge_litert")
    free = True

    def apply(
        self, artifact: Artifact, context: StepContext, config: Any, target: str | None, out_dir: Path
    ) -> Artifact:
        import torch

        from torchstone.models import store
        from torchstone.runtimes import parity

        crop = artifact.preprocess.crop
        example = torch.zeros(1, crop, crop, 3, dtype=torch.uint8)
        try:
            with quiet():
                import litert_torch  # pyright: ignore[reportMissingImports]

                litert_torch.convert(store.load(artifact), (example,)).export(str(out_dir / "model.tflite"))
        except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
            raise ChainError(
                f"'{artifact.architecture}' cannot be exported by LiteRT-Torch: {str(error).splitlines()[0]}",
                hint="onnx takes more architectures",
            ) from None
        child = identified(artifact.model_copy(update={"format": "tflite"}), out_dir)
        return parity.proven(artifact, child, "LiteRT-Torch, float32, one image a call")


@contextmanager
def quiet() -> Iterator[None]:
    """Without the stages that the converter announces, and what its libraries warn of each other."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        printed = io.StringIO()
        with warnings.catch_warnings(), redirect_stdout(printed), redirect_stderr(printed):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
