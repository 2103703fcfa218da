"""A network with its normalisation inside, and its mirror where it has one: what is exported and what is served."""

from __future__ import annotations

import torch
from torch import nn

from torchstone.core.values import Preprocess

LUMA = (0.299, 0.587, 0.114)
"""ITU-R BT.601, the weights of Pillow's ``convert('L')``."""


class Deployable(nn.Module):
    """uint8[N, H, W, 3] RGB → float32 logits[N, C]. ``mirrored``: the mean of those of each image and of its mirror
    image. A training step shows the network single images all the same; val sees what is served."""

    mean: torch.Tensor
    std: torch.Tensor
    luma: torch.Tensor

    def __init__(self, network: nn.Module, preprocess: Preprocess, *, mirrored: bool = False) -> None:
        super().__init__()
        self.network = network
        self.mirrored = mirrored
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
        x = self.normalise(image)
        if not self.mirrored:
            return self.network(x)
        # Both go through together: an exported graph holds each layer once, and a quantiser finds one range for it.
        # They are joined behind the normalisation, which quantisers know only where it directly follows the image.
        both = self.network(torch.cat([x, x.flip(3)]))
        return both.unflatten(0, (2, -1)).mean(0)
