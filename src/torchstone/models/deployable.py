"""A network with its normalisation inside: what is exported and what is served."""

from __future__ import annotations

import torch
from torch import nn

from torchstone.core.values import Preprocess

LUMA = (0.299, 0.587, 0.114)
"""ITU-R BT.601, the weights of Pillow's ``convert('L')``."""


class Deployable(nn.Module):
    """uint8[N, H, W, 3] RGB → float32 logits[N, C]."""

    mean: torch.Tensor
    std: torch.Tensor
    luma: torch.Tensor

    def __init__(self, network: nn.Module, preprocess: Preprocess) -> None:
        super().__init__()
        self.network = network
        self.channels = preprocess.channels
        mean, std = torch.tensor(preprocess.mean), torch.tensor(preprocess.std)
        if preprocess.channels == 1:
            mean, std = mean.mean(0, keepdim=True), std.mean(0, keepdim=True)
        self.register_buffer("mean", (mean * 255).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", (std * 255).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("luma", torch.tensor(LUMA).view(1, 3, 1, 1), persistent=False)

    def normalise(self, image: torch.Tensor) -> torch.Tensor:
        """uint8[N, H, W, 3] → float32[N, channels, H, W], as the network wants it."""
        x = image.permute(0, 3, 1, 2).to(torch.float32)
        if self.channels == 1:
            x = (x * self.luma).sum(1, keepdim=True)
        return (x - self.mean) / self.std

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.network(self.normalise(image))
