"""Proof that an exported model computes what its parent computes."""

from __future__ import annotations

from torchstone.core.errors import ArtifactError
from torchstone.core.values import Artifact, RuntimeOptions
from torchstone.runtimes import default_runtime, golden, open_artifact

LIMIT = 1e-4
"""Largest difference of an FP32 export, relative to the largest logit."""


def prove(parent: Artifact, child: Artifact) -> float:
    """Run ``child`` in FP32 on its parent's golden images; returns the relative difference of the logits.

    Raises ArtifactError when it exceeds LIMIT.
    """
    pixels, expected = golden.load_images(parent.directory, parent.preprocess)
    runner = open_artifact(child, RuntimeOptions(precision="f32", batch=len(pixels)))
    difference = golden.difference(runner(pixels)["logits"], expected)
    if not difference <= LIMIT:
        raise ArtifactError(
            f"the {child.format} export differs from {parent.format} by {difference:.1e} of the largest logit "
            f"(limit {LIMIT:.0e}) in {default_runtime(child.format)}",
            hint="this architecture does not export faithfully with these versions; choose another format",
        )
    return difference
