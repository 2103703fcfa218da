"""What a network is worth on val, and which of two epochs is the better one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from torchstone.evaluate import metrics
from torchstone.train.recipe import Metric

if TYPE_CHECKING:
    from numpy.typing import NDArray


def val_row(logits: NDArray[np.float32], labels: NDArray[np.int64], outputs: int) -> dict[str, float]:
    """The columns of the history that val gives; shares are in per cent."""
    matrix = metrics.confusion(labels, metrics.predicted_classes(logits), outputs)
    return {
        "val_loss": cross_entropy(logits, labels),
        "val_top1": 100 * float(np.trace(matrix) / matrix.sum()),
        "val_macro_f1": 100 * metrics.macro_f1(matrix),
        "val_balanced_accuracy": 100 * metrics.balanced_accuracy(matrix),
    }


def score(metric: Metric, row: Mapping[str, float]) -> list[float]:
    """What makes one epoch better than another, the more important first: the metric, then the loss on val (to four
    digits). Lists compare so; what is no number is worse than any."""
    loss = -row["val_loss"] if math.isfinite(row["val_loss"]) else -math.inf
    return [loss] if metric == "loss" else [row[f"val_{metric}"], round(loss, 4) if math.isfinite(loss) else loss]


def cross_entropy(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """The mean, in nats."""
    return functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels)).item()
