"""Models that nobody has trained: an architecture with fresh weights, to see what it costs before it costs anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from torchstone.core.artifact import identified
from torchstone.core.registry import steps
from torchstone.core.values import Artifact, Format, MadeBy
from torchstone.data.preprocess import default_preprocess
from torchstone.runtimes import golden, open_artifact

GOLDEN = 2
"""Images that an export is proven on."""


def fresh(architecture: str, directory: Path, *, classes: int) -> Artifact:
    """A torch artifact of ``architecture`` (a full name) in ``directory``, with random weights and the input that the
    network was designed for."""
    import torch

    from torchstone.models import store, zoo

    native = zoo.native_input(architecture)
    directory.mkdir(parents=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        store.save(zoo.build(architecture, classes=classes), directory / store.WEIGHTS)
    described = Artifact(
        id="", key="", format="torch", files={}, architecture=architecture,
        classes=tuple(f"class {number}" for number in range(classes)), preprocess=default_preprocess(native.crop),
        made_by=MadeBy(step="fresh", version=1), split_fingerprint="none",
    )  # fmt: skip
    made = identified(described, directory)
    _give_golden(made)
    return made


def exported(artifact: Artifact, format: Format, directory: Path) -> Artifact:
    """The artifact in another format, made by the export steps in directories of ``directory``; itself where it has
    that format."""
    if not (artifact.directory / "golden").is_dir():
        raise AssertionError(f"'{artifact.directory}' holds no golden images to prove an export on")
    for name in ROUTES.get((artifact.format, format), ()):
        step = steps.ready(name)
        place = directory / name
        place.mkdir(parents=True)
        child = step.apply(artifact, cast(Any, None), step.Config(), None, place)
        golden.write(place, *_stored(artifact), child.preprocess, open_artifact(child), golden.TOLERANCE["f32"])
        artifact = child.model_copy(update={"directory": place})
    return artifact


ROUTES: dict[tuple[str, str], tuple[str, ...]] = {
    ("torch", "onnx"): ("onnx",),
    ("torch", "openvino"): ("onnx", "openvino"),
    ("onnx", "openvino"): ("openvino",),
}
"""The export steps from one format to another."""


def _give_golden(artifact: Artifact) -> None:
    contents, names = golden.synthetic(artifact.preprocess.resize, GOLDEN)
    runner = open_artifact(artifact)
    golden.write(artifact.directory, contents, names, artifact.preprocess, runner, golden.TOLERANCE["f32"])


def _stored(artifact: Artifact) -> tuple[list[bytes], list[str]]:
    place = artifact.directory / "golden"
    images = sorted(file for file in place.iterdir() if file.suffix not in (".json", ".npy"))
    return [file.read_bytes() for file in images], [file.name for file in images]
