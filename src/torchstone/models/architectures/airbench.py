"""Airbench's network for 32×32 images: among the quickest to a good accuracy on CIFAR-10 (the layout comes from Keller
Jordan's "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024). Its first filters see 2×2 pixels; the recipe option
``whiten`` makes them what that paper begins with."""

from __future__ import annotations

import torch
from torch import nn

FILTERS = 24
"""Of the first layer: the 12 principal directions of 2×2 pixels in three colours, and their opposites."""
SCALE = 1 / 9
"""On what the head sees, so that fresh logits are small."""


class Block(nn.Module):
    """Convolution, pooling, and one more convolution: the halved map is what the norms and the second one work on."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.pool = nn.MaxPool2d(2)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)
        self.activation = nn.GELU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.activation(self.first_norm(self.pool(self.first(x))))
        return self.activation(self.second_norm(self.second(x)))


class Airbench(nn.Module):
    """``widths`` are the channels of its blocks."""

    def __init__(self, classes: int, channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, FILTERS, 2)
        self.activation = nn.GELU()
        self.blocks = nn.Sequential(*(Block(*pair) for pair in zip((FILTERS, *widths), widths, strict=False)))
        self.pool = nn.AdaptiveMaxPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(widths[-1], classes, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(self.activation(self.stem(x)))
        return self.head(self.flatten(self.pool(x)) * SCALE)


def airbench(classes: int, channels: int) -> nn.Module:
    """float32[N, channels, 32, 32] → logits float32[N, classes]; 1.97 million parameters, 118 million MACs."""
    return Airbench(classes, channels, (64, 256, 256))
