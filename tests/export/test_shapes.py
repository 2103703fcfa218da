"""Arithmetic on shapes leaves an exported graph, and its answers stay."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional

from torchstone.core.values import RuntimeOptions
from torchstone.export import shapes
from torchstone.runtimes.onnxruntime import open_session

CROP = 15


class Padded(nn.Module):
    """Pads as TensorFlow's 'same' does: by the size of what it sees, in floating point."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3, stride=2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = image.permute(0, 3, 1, 2).float()
        pads = []
        for size in reversed(x.shape[-2:]):
            need = torch.clamp((torch.ceil(torch.as_tensor(size) / 2) - 1) * 2 + 3 - size, min=0).to(torch.int64)
            pads += [need // 2, need - need // 2]
        return self.layer(functional.pad(x, pads)).mean((2, 3))


class ByBatch(nn.Module):
    """Needs the number of images, which nobody knows before they come."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * CROP * CROP, 4)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.layer(image.float().reshape(image.shape[0], image.shape[1] * image.shape[2] * image.shape[3]))


def exported(network: nn.Module, path: Path) -> onnx.ModelProto:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(), (torch.zeros(2, CROP, CROP, 3, dtype=torch.uint8),), path, dynamo=False, opset_version=17,
            input_names=["image"], output_names=["logits"], dynamic_axes={"image": {0: "n"}, "logits": {0: "n"}},
        )  # fmt: skip
    return onnx.load(str(path))


def answers(path: Path, count: int) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 256, (count, CROP, CROP, 3), dtype=np.uint8)
    return open_session(path, RuntimeOptions()).run(["logits"], {"image": pixels})[0]


@pytest.mark.parametrize("network", [Padded, ByBatch])
def test_what_follows_from_the_size_of_the_image_is_a_number(network: type[nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tmp_path / "model.onnx"
    before = exported(network(), path)
    expected = {count: answers(path, count) for count in (1, 3)}
    assert any(node.op_type == "Shape" for node in before.graph.node)
    shapes.fix(path, "image", CROP)
    kinds = {node.op_type for node in onnx.load(str(path)).graph.node}
    if network is Padded:
        assert not kinds & {"Shape", "Gather", "Ceil", "Clip"}, kinds
    else:
        assert "Shape" in kinds
    for count, logits in expected.items():
        np.testing.assert_array_equal(answers(path, count), logits)
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


def test_a_graph_without_such_arithmetic_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    exported(nn.Sequential(nn.Flatten(), nn.Identity()), path)
    before = path.read_bytes()
    shapes.fix(path, "image", CROP)
    assert path.read_bytes() == before
