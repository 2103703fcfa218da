"""Airbench's wider network for 32×32 images: two and a half times the work of ``airbench``. On CIFAR-10 as JPEGs, after
fourteen epochs, it is 1.4 points better than ``airbench`` after twelve."""

from __future__ import annotations

from torch import nn

from torchstone.models.architectures.airbench import Airbench


def airbench_wide(classes: int, channels: int) -> nn.Module:
    """float32[N, channels, 32, 32] → logits float32[N, classes]."""
    return Airbench(classes, channels, (128, 384, 384))
