"""Biases that make up for what rounded weights add to a layer's mean output.

Rounding a weight by ε adds ε·x to the output, and the mean of that over images is known: ε times the mean of the
input (Nagel et al. 2019, *Data-Free Quantization Through Weight Equalization and Bias Correction*, section 4.2, with
the means measured on the calibration images). It is taken from the bias. What rounding the activations adds has no
such direction.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def shift(change: NDArray[Any], mean: NDArray[Any], groups: int = 1) -> NDArray[np.float64]:
    """What is added to the mean of each output. ``change``, [outputs, inputs of a group, …], is how far rounding moved
    the weights; ``mean``, [inputs], the mean of each channel of the layer's input."""
    kernels = change.reshape(len(change), change.shape[1], -1).sum(axis=2, dtype=np.float64)
    inputs = np.repeat(mean.reshape(groups, -1), len(change) // groups, axis=0)
    return (kernels * inputs).sum(axis=1)


def channel_sums(values: NDArray[Any]) -> NDArray[np.float64]:
    """The sum over the images of each channel's mean over its positions; ``values`` is [n, channels, …]."""
    return values.reshape(len(values), values.shape[1], -1).mean(axis=2, dtype=np.float64).sum(axis=0)
