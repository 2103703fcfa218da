"""Proof that an exported model computes what its parent computes."""

from __future__ import annotations

import numpy as np

from torchstone.core.artifact import noted
from torchstone.core.errors import ArtifactError
from torchstone.core.values import Artifact, RuntimeOptions
from torchstone.runtimes import default_runtime, golden, open_artifact

LIMIT = 1e-4
"""Largest difference of an FP32 export, relative to the largest logit."""
HALVED = 1e-2
"""The same where weights were rounded to half precision: ten bits of mantissa, in each of tens of layers."""


def prove(parent: Artifact, child: Artifact, limit: float = LIMIT) -> float:
    """Run ``child`` in FP32 on its parent's golden images; returns the relative difference of the logits.

    Raises ArtifactError when it exceeds ``limit``.
    """
    pixels, expected = golden.load_images(parent.directory, parent.preprocess)
    runner = open_artifact(child, RuntimeOptions(precision="f32", batch=len(pixels)))
    logits = runner(pixels)["logits"]
    difference = golden.difference(logits, expected) if np.isfinite(logits).all() else np.inf
    if not difference <= limit:
        raise ArtifactError(
            f"the {child.format} export differs from {parent.format} by {difference:.1e} of the largest logit "
            f"(limit {limit:.0e}) in {default_runtime(child.format)}",
            hint="this architecture does not export faithfully with these versions; choose another format",
        )
    return difference


def proven(parent: Artifact, child: Artifact, how: str, limit: float = LIMIT) -> Artifact:
    """``child``, once it is proven, with a note that says how it was made and how close it is."""
    difference = prove(parent, child, limit)
    return noted(
        child, f"{how}: its logits differ " + (f"by {difference:.0e} of the largest" if difference else "in nothing")
    )
