"""EfficientNet's compound scaling (Tan and Le 2019, "EfficientNet: Rethinking model scaling for convolutional neural
networks"): one number, φ, makes a network deeper by 1.2^φ, wider by 1.1^φ and its images larger by 1.15^φ, so that its
operations grow by about (1.2 · 1.1² · 1.15²)^φ = 1.92^φ.

The published B1 to B7 follow the formula only at first: rounded to a decimal, φ = 0, ½, 1 and 2 give B0 to B3. From B4
on no φ gives all three numbers (B7's width asks for φ = 7.3, its depth for 6.2, its resolution for 7.0). So both are
here: ``compound`` for any φ, and ``PUBLISHED``.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import nn

ALPHA, BETA, GAMMA = 1.2, 1.1, 1.15
"""Growth of depth, width and resolution a unit of φ (section 4 of the paper)."""
LARGEST = 8.0
"""φ up to which networks are built: about 190 times B0's operations."""
BASE = 224
"""B0's resolution in pixels."""


class Scaling(NamedTuple):
    """Factors of the number of layers and of channels, and the pixels a side."""

    depth: float
    width: float
    resolution: int


class Stage(NamedTuple):
    """Blocks of one shape that follow each other: ``mbconv``, or ``separable`` without an expansion."""

    block: str
    kernel: int
    stride: int
    expansion: int
    channels: int
    repeats: int


B0 = (
    Stage("separable", 3, 1, 1, 16, 1),
    Stage("mbconv", 3, 2, 6, 24, 2),
    Stage("mbconv", 5, 2, 6, 40, 2),
    Stage("mbconv", 3, 2, 6, 80, 3),
    Stage("mbconv", 5, 1, 6, 112, 3),
    Stage("mbconv", 5, 2, 6, 192, 4),
    Stage("mbconv", 3, 1, 6, 320, 1),
)
"""Table 1 of the paper, between the stem and the head."""
STEM, HEAD = 32, 1280

PUBLISHED = {
    "b0": Scaling(1.0, 1.0, 224),
    "b1": Scaling(1.1, 1.0, 240),
    "b2": Scaling(1.2, 1.1, 260),
    "b3": Scaling(1.4, 1.2, 300),
    "b4": Scaling(1.8, 1.4, 380),
    "b5": Scaling(2.2, 1.6, 456),
    "b6": Scaling(2.6, 1.8, 528),
    "b7": Scaling(3.1, 2.0, 600),
}
"""The coefficients of the authors' own code."""


def compound(phi: float) -> Scaling:
    """The formula, with depth and width exact and the resolution rounded to ten pixels, as B0 to B3 have it (224 is
    B0's own)."""
    resolution = BASE if phi == 0 else 10 * round(BASE * GAMMA**phi / 10)
    return Scaling(ALPHA**phi, BETA**phi, resolution)


def channels(base: int, width: float) -> int:
    """``base · width`` rounded to the nearest multiple of 8, but never by more than a tenth downwards."""
    wanted = base * width
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded


def repeats(base: int, depth: float) -> int:
    """``base · depth`` blocks, rounded up. What floating point adds to a whole number is not a block."""
    return math.ceil(base * depth - 1e-9)


def stages(scaling: Scaling) -> tuple[Stage, ...]:
    """B0's stages at this depth and width."""
    return tuple(
        stage._replace(channels=channels(stage.channels, scaling.width), repeats=repeats(stage.repeats, scaling.depth))
        for stage in B0
    )


def build(scaling: Scaling, *, classes: int, inputs: int = 3) -> nn.Module:
    """The network, of timm's blocks: float32[N, inputs, resolution, resolution] → logits. With published coefficients
    it is timm's ``efficientnet_b0`` … ``b7``, tensor for tensor."""
    from timm.models._efficientnet_builder import decode_arch_def
    from timm.models.efficientnet import EfficientNet

    return EfficientNet(
        block_args=decode_arch_def([[_described(stage)] for stage in stages(scaling)]),
        num_classes=classes,
        in_chans=inputs,
        stem_size=channels(STEM, scaling.width),
        fix_stem=True,
        num_features=channels(HEAD, scaling.width),
        act_layer=nn.SiLU,
    )


def _described(stage: Stage) -> str:
    """One stage in timm's notation."""
    kind = "ds" if stage.block == "separable" else "ir"
    return f"{kind}_r{stage.repeats}_k{stage.kernel}_s{stage.stride}_e{stage.expansion}_c{stage.channels}_se0.25"
