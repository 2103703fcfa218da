from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch_pruning
from torch import nn

from torchstone.core.errors import ArtifactError
from torchstone.core.values import Artifact, MadeBy
from torchstone.data.preprocess import default_preprocess
from torchstone.models import store, zoo
from torchstone.models.deployable import Deployable


def artifact(architecture: str, directory: Path, crop: int = 32) -> Artifact:
    return Artifact(
        id="",
        key="",
        directory=directory,
        format="torch",
        files={},
        architecture=architecture,
        classes=tuple("0123456789"),
        preprocess=default_preprocess(crop),
        made_by=MadeBy(step="train", version=1),
        split_fingerprint="",
    )


def pixels(crop: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (4, crop, crop, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def pruned(architecture: str, crop: int) -> nn.Module:
    torch.manual_seed(0)
    network = zoo.build(architecture, classes=10).eval()
    _, head = zoo.head(network)
    torch_pruning.pruner.BasePruner(
        network,
        zoo.input_like(crop),
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=0.4,
        ignored_layers=[head],
    ).step()
    return network


@pytest.mark.parametrize(
    ("architecture", "crop"),
    [
        ("lenet5", 32),
        ("resnet9", 32),
        ("resnet20", 32),
        ("timm:resnet18", 64),
        ("timm:mobilenetv3_small_050", 64),  # depthwise convolutions and squeeze-and-excitation
        ("timm:tf_efficientnet_lite0", 64),
        pytest.param("torchvision:vgg11", 64, marks=pytest.mark.slow),  # half a gigabyte; LeNet-5 flattens as well
    ],
)
def test_a_pruned_network_reloads_by_its_shapes(architecture: str, crop: int, tmp_path: Path) -> None:
    described = artifact(architecture, tmp_path, crop)
    network = pruned(architecture, crop)
    assert zoo.parameters(network) < 0.8 * zoo.parameters(zoo.build(architecture, classes=10))
    model = Deployable(network, described.preprocess)
    store.save_proven(model, described, tmp_path, pixels(crop))
    with torch.inference_mode():
        assert torch.allclose(store.load(described)(pixels(crop)), model.eval()(pixels(crop)), rtol=1e-4, atol=1e-5)


def test_what_does_not_reproduce_is_not_saved(tmp_path: Path) -> None:
    """The same tensors in a network that computes something else."""

    class Doubled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = zoo.build("lenet5", classes=10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * self.inner(x)

        def state_dict(self, *args: object, **kwargs: object) -> dict[str, torch.Tensor]:  # pyright: ignore
            return self.inner.state_dict()

    described = artifact("lenet5", tmp_path)
    with pytest.raises(ArtifactError, match="answers differently"):
        store.save_proven(Deployable(Doubled(), described.preprocess), described, tmp_path, pixels())
    assert list(tmp_path.iterdir()) == []


def test_weights_of_another_architecture_are_named(tmp_path: Path) -> None:
    store.save(zoo.build("resnet20", classes=10), tmp_path / store.WEIGHTS)
    with pytest.raises(ArtifactError, match="not of this architecture"):
        store.load(artifact("lenet5", tmp_path))


def test_truncated_weights_are_an_artifact_error(tmp_path: Path) -> None:
    path = tmp_path / store.WEIGHTS
    store.save(zoo.build("lenet5", classes=10), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ArtifactError, match="not a readable safetensors file"):
        store.load(artifact("lenet5", tmp_path))


def test_normalisation_inside_the_model_is_the_declared_one() -> None:
    preprocess = default_preprocess(32, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    image = pixels()
    found = Deployable(nn.Identity(), preprocess).normalise(image)
    expected = (image.permute(0, 3, 1, 2) / 255 - torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1)) / torch.tensor(
        [0.4, 0.5, 0.6]
    ).view(1, 3, 1, 1)
    assert torch.allclose(found, expected, atol=1e-5)


def test_one_channel_is_the_luma() -> None:
    preprocess = default_preprocess(32, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), channels=1)
    image = pixels()
    found = Deployable(nn.Identity(), preprocess).normalise(image)
    from PIL import Image

    grey = torch.tensor([list(Image.fromarray(one.numpy()).convert("L").tobytes()) for one in image])
    assert found.shape == (4, 1, 32, 32)
    assert (255 * found.flatten(1) - grey).abs().max() <= 1.0  # Pillow rounds down
