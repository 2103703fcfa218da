"""What the servers are compared with: bundles, the JPEG files that are posted to them, and the bundle's own answers."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

import workbench
from torchstone.config import Settings
from torchstone.core import files
from torchstone.core.contracts import ImageSet
from torchstone.core.run import Run
from torchstone.core.values import Candidate, Preprocess, RuntimeOptions
from torchstone.data.preprocess import prepare
from torchstone.export import bundle as bundles
from torchstone.models import store, zoo
from torchstone.models.deployable import Deployable
from torchstone.runtimes import open_candidate
from torchstone.stages import train
from torchstone.stages.compress import build_all, plan_all
from torchstone.stages.find import baseline_of
from torchstone.stages.read import read
from torchstone.train import stage
from torchstone.train.recipe import Recipe
from torchstone.train.stage import TrainRequest

NAMES = ("lenet5", "resnet18-int8")
RESNET = "torchvision:resnet18"
LEARNED, ASKED, SIDE = 64, 64, 400
"""Pieces of photos that the network is made with, and others that are posted; their pixels a side."""
PROOF, SURE = 16, 0.05
"""Images that every server answers like the bundle, at most; and how much more probable their first class is there than
the second: what is nearer may turn with the size of a batch."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is served, and what is asked."""

    name: str
    bundle: Path
    images: tuple[bytes, ...]
    expected: dict[int, int]
    """Image: the bundle's own answer, of those that are asked for as a proof."""


def case_of(name: str, bundle: Path, folder: Path, count: int) -> Case:
    """The bundle with its answers to ``count`` of the folder's JPEG files."""
    contents = [path.read_bytes() for path in workbench.pictures([folder]) if path.suffix.lower() in (".jpg", ".jpeg")]
    candidate = bundles.load(bundle)
    if candidate.artifact.format != "onnx":
        raise SystemExit(f"error: '{bundle}' holds {candidate.artifact.format}, which the peers cannot open")
    options = RuntimeOptions(threads=1, precision=candidate.options.precision)
    runner = open_candidate(candidate.model_copy(update={"runtime": "onnxruntime", "options": options}))
    pixels = np.stack([prepare(content, candidate.artifact.preprocess) for content in contents[:count]])
    logits = np.concatenate([runner(pixels[row : row + 1])["logits"] for row in range(len(pixels))]).astype(np.float64)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    best = np.sort(powers / powers.sum(axis=1, keepdims=True), axis=1)
    sure = np.flatnonzero(best[:, -1] - best[:, -2] > SURE)
    expected = {int(row): int(logits[row].argmax()) for row in sure[np.linspace(0, len(sure) - 1, PROOF).astype(int)]}
    if len(set(expected.values())) < 2:
        raise SystemExit(f"error: '{bundle}' gives one answer to all these images, so that they prove nothing")
    return Case(name=name, bundle=bundle.resolve(), images=tuple(contents[:count]), expected=expected)


def make(place: Path) -> None:
    """A bundle and a folder of images for each name."""
    for name, made in (("lenet5", lenet5), ("resnet18-int8", resnet18)):
        candidate, val, asked = made(place)
        folder = place / name
        files.remove(folder)
        bundles.write(candidate, None, folder / "bundle", val=lambda _, val=val: val)
        for row in range(min(len(asked), ASKED)):
            files.write_bytes(folder / "images" / f"{row:03}.jpg", as_jpeg(asked, row))
        print(f"{folder / 'bundle'}: {candidate.name}, {candidate.artifact.size_mb:.2f} MB")


def as_jpeg(images: ImageSet, row: int) -> bytes:
    """The file itself, if it is one; else its pixels as one."""
    content = images.encoded(row)
    if content.startswith(b"\xff\xd8"):
        return content
    buffer = io.BytesIO()
    Image.fromarray(images.images(slice(row, row + 1))[0]).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def lenet5(place: Path) -> tuple[Candidate, ImageSet, ImageSet]:
    """LeNet-5 in FP32, trained on scikit-learn's digits; val, and test."""
    settings = Settings(
        data="digits", name="lenet5", runs=place / "runs", model="lenet5", epochs=4, recipe="quick", device="cpu"
    )
    data = read(settings)
    trained = train.trained(settings, data)
    candidate = build_all(plan_all(["onnx"]), baseline_of(trained), data, seed=settings.seed)[0]
    sets: Any = data.sets(candidate.artifact, "val", "test")
    return candidate, sets["val"], sets["test"]


def resnet18(place: Path) -> tuple[Candidate, ImageSet, ImageSet]:
    """ResNet-18 at 224 pixels in INT8 that tells pieces of one photo from pieces of another; some of these pieces, and
    others. Its weights are random but for the last layer: right for speed, and the answers differ."""
    paths = workbench.pictures([workbench.cut_out(place / "photos", LEARNED + ASKED, SIDE)])
    learned = workbench.pictures([place / "photos"], LEARNED)
    request = TrainRequest(model=RESNET, recipe=Recipe(epochs=0))
    preprocess = stage.preprocess_for(request, stage.architecture_of(request))
    seen = workbench.Photos(learned, preprocess)
    weights = place / "resnet18.safetensors"
    store.save(fitted(seen, preprocess), weights)
    request = request.model_copy(update={"weights": str(weights)})
    bench = workbench.untrained(request, Run(place / "runs" / "resnet18"), learned, classes=2, threads=1)
    candidate = bench.built("int8@onnxruntime")
    if candidate is None:
        raise SystemExit("error: there is no INT8 network on this machine")
    others = workbench.Photos([path for path in paths if path not in learned], preprocess)
    return candidate, seen, others


def fitted(photos: ImageSet, preprocess: Preprocess) -> nn.Module:
    """The network with the photos' own statistics in its norms, and a last layer that was fitted to their folders by
    least squares."""
    torch.manual_seed(0)
    network = zoo.build(RESNET, classes=2)
    model = Deployable(network, preprocess)
    batches = [torch.from_numpy(photos.images(slice(row, row + 16)).copy()) for row in range(0, len(photos), 16)]
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # the plain mean of all batches
    head = network.get_submodule("fc")
    assert isinstance(head, nn.Linear)
    network.add_module("fc", nn.Identity())
    with torch.inference_mode():
        for batch in batches:
            model.train()(batch)
        features = torch.cat([model.eval()(batch) for batch in batches])
    centre = features.mean(0)
    labels = 8 * nn.functional.one_hot(torch.from_numpy(photos.labels), 2).float()
    moments = (features - centre).T @ (features - centre)
    ridge = moments.diagonal().mean() * torch.eye(len(moments))
    found = torch.linalg.solve(moments + ridge, (features - centre).T @ (labels - labels.mean(0)))
    with torch.no_grad():
        head.weight.copy_(found.T)
        head.bias.copy_(labels.mean(0) - centre @ found)
    network.add_module("fc", head)
    return network
