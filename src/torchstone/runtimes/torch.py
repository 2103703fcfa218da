"""Eager PyTorch: where a model comes from, and the baseline that the others are compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from torchstone.core.contracts import Runner
from torchstone.core.errors import ArtifactError, TorchstoneError
from torchstone.core.values import Artifact, Format, RuntimeOptions
from torchstone.runtimes import adapt

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Torch:
    """Opens ``weights.safetensors``: the network as it was trained, its weights laid out as channels_last; and
    ``model.pt2``, the same as an exported program.

    An eager baseline should not be slow by choice. The images arrive as NHWC, and with NCHW weights PyTorch reorders
    at every layer: ResNet-18 takes 85 ms, 63 with NCHW throughout, 56 as it is here (EfficientNet-Lite0: 26, 34, 27;
    LeNet-5: 0.28, 0.33, 0.28; EPYC with AVX-512, one thread, torch 2.14).

    ``bf16`` is autocast, as PyTorch itself recommends for inference: matrix products and convolutions in BF16.
    """

    formats: ClassVar[tuple[Format, ...]] = ("torch", "pt2")
    precisions: ClassVar[tuple[str, ...]] = ("f32", "bf16")
    requires: ClassVar[tuple[str, ...]] = ("torch", "safetensors")
    fixed_batch: ClassVar[bool] = False

    def open(self, artifact: Artifact, options: RuntimeOptions) -> Runner:
        adapt.check("torch", self, artifact, options)
        import torch

        from torchstone.models import archive, store

        if options.provider == "cuda" and not torch.cuda.is_available():
            raise ArtifactError(
                "PyTorch finds no CUDA device here", hint="open it with the provider cpu; see `torchstone doctor`"
            )
        exported = artifact.format == "pt2"
        if exported and (options.provider != "cpu" or options.precision != "f32"):
            raise ArtifactError(
                "an exported program runs where and in what it was exported for: float32 on the CPU",
                hint="open the torch artifact that it was made from",
            )
        path = adapt.model_file(artifact, ".pt2" if exported else ".safetensors")
        try:
            if exported:
                module = archive.load(path)
            else:
                module = store.load(artifact).to(options.provider).to(memory_format=torch.channels_last).eval()
        except TorchstoneError:
            raise
        except Exception as error:
            raise adapt.refused("torch", path, error) from error
        return adapt.runner("torch", path, artifact, forward_of(module, options))


def forward_of(module: Any, options: RuntimeOptions) -> adapt.Forward:
    """Calls of ``module`` in the options' threads and arithmetic."""
    import torch

    bf16 = options.precision == "bf16"

    def forward(batch: NDArray) -> NDArray:
        # The number of threads belongs to the process, where training or another runner may have changed it.
        if torch.get_num_threads() != options.threads:
            torch.set_num_threads(options.threads)
        images = torch.from_numpy(np.require(batch, requirements="W"))  # PyTorch warns of read-only (mapped) arrays
        with torch.inference_mode(), torch.autocast(options.provider, torch.bfloat16, enabled=bf16):
            return module(images.to(options.provider)).float().cpu().numpy()

    return forward
