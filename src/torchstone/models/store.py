"""Weights on disk as safetensors, and back. A network whose channels were pruned is rebuilt from its architecture by
shrinking each module to the shapes found in the file; no code is stored and nothing is unpickled."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from torchstone.core.errors import ArtifactError
from torchstone.core.values import Artifact
from torchstone.models import zoo
from torchstone.models.deployable import Deployable

WEIGHTS = "weights.safetensors"


def save(network: nn.Module, path: Path) -> None:
    """Write the network's state, whole or not at all."""
    state = {name: tensor.detach().contiguous().clone() for name, tensor in network.state_dict().items()}
    beside = path.with_name(path.name + ".tmp")
    save_file(state, beside)
    beside.replace(path)


def save_proven(model: Deployable, artifact: Artifact, directory: Path, pixels: torch.Tensor) -> None:
    """Write the network's weights into ``directory`` and prove that they come back: the network rebuilt from
    ``artifact``'s architecture and the file gives the same logits on ``pixels``, uint8[n, H, W, 3].

    Raises ArtifactError, and leaves no file, when it does not.
    """
    path = directory / WEIGHTS
    save(model.network, path)
    with torch.inference_mode():
        expected = model.eval()(pixels)
        try:
            found = load(artifact.model_copy(update={"directory": directory}))(pixels)
        except (ArtifactError, RuntimeError) as error:
            path.unlink()
            raise ArtifactError(
                f"this network cannot be rebuilt from its weights: {error}",
                hint="its structure depends on more than the shapes of its tensors; choose another architecture",
            ) from None
    difference = ((found - expected).abs().max() / expected.abs().max().clamp_min(1e-12)).item()
    if not difference <= REPRODUCES:
        path.unlink()
        raise ArtifactError(
            f"the network rebuilt from its weights answers differently: {difference:.1e} of the largest logit"
        )


REPRODUCES = 1e-5
"""Largest difference of a reloaded network, relative to its largest logit (memory layouts may differ)."""


def load_state(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file."""
    try:
        return load_file(path)
    except FileNotFoundError:
        raise ArtifactError(f"'{path}' does not exist") from None
    except Exception as error:  # safetensors raises its own exception type and OSError
        raise ArtifactError(f"'{path}' is not a readable safetensors file: {error}") from None


def load(artifact: Artifact) -> Deployable:
    """The artifact's network in eval mode, with its normalisation. Raises ArtifactError if the weights do not fit."""
    network = load_network(artifact)
    return Deployable(network, artifact.preprocess, mirrored=artifact.mirrored).eval()


def load_network(artifact: Artifact) -> nn.Module:
    """The artifact's bare network (normalised float input), in eval mode."""
    network = zoo.build(artifact.architecture, classes=len(artifact.classes), **artifact.architecture_options)
    fit(network, load_state(artifact.directory / WEIGHTS))
    return network.eval()


def fit(network: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Load ``state`` into ``network``, first shrinking each module whose tensors are smaller there."""
    expected = network.state_dict()
    if expected.keys() != state.keys():
        odd = sorted(expected.keys() ^ state.keys())
        raise ArtifactError(
            f"the weights are not of this architecture: {len(odd)} names differ, '{odd[0]}' among them",
            hint="was the architecture's library upgraded since the model was made?",
        )
    for name, module in network.named_modules():
        weight = state.get(f"{name}.weight" if name else "weight")
        if weight is not None and weight.shape != expected[f"{name}.weight" if name else "weight"].shape:
            _shrink(name, module, weight.shape)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ArtifactError(f"the weights do not fit the architecture: {error}") from None


def _shrink(name: str, module: nn.Module, shape: torch.Size) -> None:
    """Give ``module`` parameters of the size that ``shape``, its stored weight's, implies."""
    if isinstance(module, nn.Conv2d):
        if module.groups == module.in_channels and module.groups > 1:
            module.groups = shape[0]  # depthwise: a group a channel
        module.out_channels, module.in_channels = shape[0], shape[1] * module.groups
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = shape
    elif isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
        module.num_features = shape[0]
        for buffer in ("running_mean", "running_var"):
            module.register_buffer(buffer, torch.zeros(shape[0]))
    else:
        raise ArtifactError(f"'{name}', a {type(module).__name__}, has another shape than its architecture gives it")
    module.weight = nn.Parameter(torch.zeros(shape))
    if module.bias is not None:
        module.bias = nn.Parameter(torch.zeros(shape[0]))
