"""The artifact directory: what identifies it, how it is built once, and how it is read back."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from torchstone.core import console, files, machine
from torchstone.core.errors import ArtifactError
from torchstone.core.values import Artifact

CHECKPOINTS = "checkpoints"
"""What an interrupted step goes on from; it lies beside the model's files until the artifact stands."""
IDENTITY = {
    "format", "files", "architecture", "architecture_options", "classes", "preprocess", "input", "output", "precision",
    "mirrored",
}  # fmt: skip
"""What makes two artifacts the same model: the files, and how they are to be read."""
CLOCK = "clock.json"
"""When an attempt began, and the seconds of those before it; it lies beside the checkpoints, as long as they do."""
CLOCK_SKEW = 5.0
"""Seconds by which a file's own time may differ from the one that was written into it: disks round, and servers of
files have clocks of their own."""
MODEL_SUFFIXES = (".safetensors", ".onnx", ".xml", ".bin", ".pt2", ".engine", ".tflite")


def model_files(directory: Path) -> dict[str, str]:
    """File name: sha256, of the model's own files in ``directory``."""
    names = sorted(file.name for file in directory.iterdir() if file.suffix in MODEL_SUFFIXES)
    if not names:
        raise AssertionError(f"no model file was written to {directory}")
    return {name: files.sha256(directory / name) for name in names}


def identified(artifact: Artifact, directory: Path) -> Artifact:
    """``artifact`` as the description of what lies in ``directory`` now: its files and the id they give."""
    found = model_files(directory)
    made = artifact.model_copy(update={"files": found, "directory": directory})
    return made.model_copy(update={"id": files.digest(made.model_dump(mode="json", include=IDENTITY))})


def noted(artifact: Artifact, note: str) -> Artifact:
    """``artifact`` with one more note, which is also said now."""
    console.say(note)
    return artifact.model_copy(update={"notes": (*artifact.notes, note)})


def key_of(made_of: dict[str, Any], packages: tuple[str, ...]) -> str:
    """Hash of all that goes into an artifact: its ingredients and the versions of the packages that make it."""
    homes = _homes()
    versions = {name: [metadata.version(home) for home in homes.get(name, [])] for name in sorted(packages)}
    return files.digest({**made_of, "packages": versions})


@functools.cache
def _homes() -> Mapping[str, list[str]]:
    """Name to import: the distributions that bring it. To read them all takes half a second; once is enough."""
    return metadata.packages_distributions()


def build(place: Path, make: Callable[[Path], Artifact], *, resume: bool = False) -> Artifact:
    """The artifact at ``place``: loaded if it stands there whole, else made (in a directory beside, then renamed)."""
    if (place / "artifact.json").exists():
        return load_artifact(place)
    with files.whole_directory(place, resume=resume) as directory:
        earlier = _earlier_seconds(directory)
        if resume:
            files.write_json(directory / CLOCK, {"began": time.time(), "earlier": earlier})
        started = time.monotonic()
        artifact = make(directory)
        seconds = None if earlier is None else earlier + time.monotonic() - started
        (directory / CLOCK).unlink(missing_ok=True)
        made = artifact.model_copy(update={"environment": machine.summary(), "seconds": seconds})
        made.save(directory / "artifact.json")
    files.remove(place / CHECKPOINTS)
    return load_artifact(place)


def _earlier_seconds(directory: Path) -> float | None:
    """Seconds of the interrupted attempts that are gone on from in ``directory``, each up to the last file that it
    wrote: a killed process says nothing of its end. None where the files cannot tell, since they were copied here."""
    clock = directory / CLOCK
    if not clock.exists():
        return None if any(directory.iterdir()) else 0.0
    stored = files.read_json(clock)
    began = clock.stat().st_mtime
    if stored["earlier"] is None or abs(began - stored["began"]) > CLOCK_SKEW:
        return None
    last = max(path.stat().st_mtime for path in directory.rglob("*"))
    return float(stored["earlier"]) + max(0.0, last - began)


def lineage(artifact: Artifact) -> list[Artifact]:
    """The artifacts that it was made by way of: the model that its chain began with first, itself last. Their files
    are not checked. Raises an ArtifactError where one of them no longer lies beside it."""
    places = sorted(artifact.directory.parent.glob("*/artifact.json"))
    beside = [Artifact.load(path).model_copy(update={"directory": path.parent}) for path in places]
    way = [artifact]
    while way[0].parent is not None:
        chain, seen = way[0].chain, {one.key for one in way}
        known = [one for one in beside if one.id == way[0].parent and one.key not in seen]
        if not known:
            raise ArtifactError(
                f"the model that '{chain}' was made from is gone", hint="type the command that made it again"
            )
        # Two chains can end in the same files: the parent is the one whose chain is gone on with.
        way.insert(0, max(known, key=lambda one: len(one.chain) if chain.startswith(one.chain) else -1))
    return way


def load_artifact(directory: Path) -> Artifact:
    """The artifact stored in ``directory``, after checking that every file is the one that was stored."""
    if not directory.is_dir():
        raise ArtifactError(f"'{directory}' is not a directory", hint="name an artifact below runs/NAME/artifacts")
    artifact = Artifact.load(directory / "artifact.json").model_copy(update={"directory": directory})
    for name, expected in artifact.files.items():
        file = directory / name
        if not file.is_file():
            raise ArtifactError(f"'{file}' is missing", hint="delete the directory and run the same command again")
        if files.sha256(file) != expected:
            raise ArtifactError(
                f"'{file}' is not the file that was stored: its sha256 differs",
                hint="delete the directory and run the same command again",
            )
    return artifact
