"""PyTorch's own exported program, as ``torch.export`` makes it: a graph that needs no Python code of the model's."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from torchstone.core.artifact import identified
from torchstone.core.contracts import Step, StepContext
from torchstone.core.errors import ChainError
from torchstone.core.values import Artifact


class Pt2(Step):
    """Exports a torch artifact to ``model.pt2``: uint8 NHWC in, normalisation inside, logits out, any number of images.

    For programs that have PyTorch and nothing else: ``torch.export.load('model.pt2').module()`` answers without this
    package. It is as fast as eager PyTorch, which runs the same kernels. The archive holds no pickle; see
    ``models.archive`` for what that does and does not make safe.
    """

    version = 1
    accepts = ("torch",)
    produces = "pt2"
    requires = ("torch", "safetensors")
    free = True

    def apply(
        self, artifact: Artifact, context: StepContext, config: Any, target: str | None, out_dir: Path
    ) -> Artifact:
        import torch
        from torch._dynamo import exc

        from torchstone.models import archive, store
        from torchstone.runtimes import parity

        model = store.load(artifact).to(memory_format=torch.channels_last)
        crop = artifact.preprocess.crop
        example = torch.zeros(2, crop, crop, 3, dtype=torch.uint8)
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")
                shapes = {"image": {0: torch.export.Dim("batch")}}
                program = torch.export.export(model, (example,), dynamic_shapes=shapes)
        except (RuntimeError, ValueError, AssertionError, exc.TorchDynamoException) as error:
            raise ChainError(
                f"'{artifact.architecture}' cannot be exported by torch.export: {str(error).splitlines()[0]}",
                hint="onnx traces it instead, and runs in more places",
            ) from None
        archive.save(program, out_dir / "model.pt2")
        child = identified(artifact.model_copy(update={"format": "pt2"}), out_dir)
        return parity.proven(artifact, child, "exported by torch.export")
