"""LeNet-5 (LeCun et al. 1998, "Gradient-based learning applied to document recognition", figure 2), with today's
ReLU and max pooling in place of the scaled tanh and the trainable subsampling."""

from __future__ import annotations

from torch import nn


def lenet5(classes: int, channels: int) -> nn.Module:
    """float32[N, channels, 32, 32] → logits float32[N, classes]; 61,706 parameters at 1 channel and 10 classes."""
    return nn.Sequential(
        nn.Conv2d(channels, 6, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * 5 * 5, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, classes),
    )
