"""Fixtures: a small network in each format that can be made here, and real pixels for it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from torchstone.core.artifact import identified
from torchstone.core.values import Artifact, Candidate, MadeBy, Preprocess

CROP = 32


@pytest.fixture(scope="session")
def pixels() -> np.ndarray:
    """40 pieces of a photo, uint8[40, 32, 32, 3]."""
    import sklearn.datasets

    path = Path(sklearn.datasets.__file__).parent / "images" / "flower.jpg"
    photo = np.asarray(Image.open(path).convert("RGB"))
    return np.stack([photo[row : row + CROP, row * 9 : row * 9 + CROP] for row in range(40)])


@pytest.fixture(scope="session")
def encoded(pixels: np.ndarray) -> list[bytes]:
    """Four of them as PNG files."""
    contents = []
    for piece in pixels[:4]:
        buffer = io.BytesIO()
        Image.fromarray(piece).save(buffer, "PNG")
        contents.append(buffer.getvalue())
    return contents


@pytest.fixture(scope="session")
def lenet5(tmp_path_factory: pytest.TempPathFactory, encoded: list[bytes]) -> dict[str, Artifact]:
    """LeNet-5 with random weights for ten classes: torch, and as the export steps make it, onnx and openvino."""
    import PIL
    import torch

    from torchstone.core.registry import missing_packages, steps
    from torchstone.models import store, zoo
    from torchstone.runtimes import golden, open_artifact

    def seal(artifact: Artifact) -> None:
        names = [f"{row}.png" for row in range(len(encoded))]
        golden.write(artifact.directory, encoded, names, artifact.preprocess, open_artifact(artifact), 1e-3)

    directory = tmp_path_factory.mktemp("lenet5")
    torch.manual_seed(0)
    (directory / "torch").mkdir()
    store.save(zoo.build("lenet5", classes=10), directory / "torch" / store.WEIGHTS)
    described = Artifact(
        id="", key="", format="torch", files={}, architecture="lenet5", classes=tuple("0123456789"),
        preprocess=Preprocess(decoder_version=PIL.__version__, resize=CROP, crop=CROP),
        made_by=MadeBy(step="train", version=1), split_fingerprint="none",
    )  # fmt: skip
    made = {"torch": identified(described, directory / "torch")}
    seal(made["torch"])
    for parent, child in (("torch", "onnx"), ("onnx", "openvino"), ("torch", "pt2"), ("torch", "tflite")):
        step = steps.get(child)
        if missing_packages(step.requires):
            continue  # LiteRT-Torch, which brings JAX
        (directory / child).mkdir()
        made[child] = step.apply(made[parent], cast(Any, None), step.Config(), None, directory / child)
        seal(made[child])
    return made


@pytest.fixture(scope="session")
def candidates(lenet5: dict[str, Artifact]) -> dict[str, Candidate]:
    """The ways to run it, by 'format@runtime'."""
    pairs = (
        ("torch", "torch"), ("pt2", "torch"), ("onnx", "onnxruntime"), ("onnx", "openvino"), ("openvino", "openvino"),
    )  # fmt: skip
    made = [Candidate(name=f"{form}@{runtime}", artifact=lenet5[form], runtime=runtime) for form, runtime in pairs]
    return {candidate.name: candidate for candidate in made}
