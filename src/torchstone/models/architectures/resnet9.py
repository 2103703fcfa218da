"""ResNet-9 for 32×32 images at half its usual width: one of the small networks that are soon good on CIFAR-10 (the
layout comes from David Page's "How to train your ResNet", 2018)."""

from __future__ import annotations

import torch
from torch import nn


def _conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=False)
    )


class Residual(nn.Module):
    """x + two convolutions of x."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _conv(width, width)
        self.second = _conv(width, width)
        self.drop_path = nn.Identity()  # a training puts its stochastic depth here

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.drop_path(self.second(self.first(x)))


def resnet9(classes: int, channels: int) -> nn.Module:
    """float32[N, channels, 32, 32] → logits float32[N, classes]; 1.65 million parameters, 95 million MACs."""
    return nn.Sequential(
        _conv(channels, 32),
        _conv(32, 64),
        nn.MaxPool2d(2),
        Residual(64),
        _conv(64, 128),
        nn.MaxPool2d(2),
        _conv(128, 256),
        nn.MaxPool2d(2),
        Residual(256),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(256, classes),
    )
