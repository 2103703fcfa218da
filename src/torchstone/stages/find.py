"""From what a user names to an artifact, and from an artifact to a candidate."""

from __future__ import annotations

from pathlib import Path

from torchstone.compress.chain import keeps_weights, named
from torchstone.core import files, registry
from torchstone.core.artifact import load_artifact
from torchstone.core.errors import ArtifactError
from torchstone.core.values import Artifact, Candidate, RuntimeOptions
from torchstone.runtimes import default_runtime

BEGINNINGS = ("train", "import")
"""What makes a model that chains begin with."""


def baseline_of(artifact: Artifact, threads: int = 1) -> Candidate:
    """The artifact in the runtime of its own format: what the others are compared with."""
    return candidate_of(artifact, artifact.chain or artifact.format, None, threads)


def candidate_of(artifact: Artifact, name: str, runtime: str | None, threads: int) -> Candidate:
    """The artifact in ``runtime`` (by default that of its format), in the arithmetic it was made for."""
    runtime = runtime or default_runtime(artifact.format)
    return Candidate(
        name=named(name, runtime),
        artifact=artifact,
        runtime=runtime,
        options=RuntimeOptions(threads=threads, precision=artifact.precision),
        free=artifact.chain != "" and keeps_weights(artifact.chain),
    )


def find_artifact(model: str) -> Artifact:
    """The artifact behind a path: an artifact's own directory, or a run, whose trained or imported model it is."""
    place = Path(model)
    if (place / "artifact.json").exists():
        return load_artifact(place)
    trained_ones = [
        path.parent
        for path in place.glob("artifacts/*/artifact.json")
        if files.read_json(path)["made_by"]["step"] in BEGINNINGS
    ]
    if len(trained_ones) == 1:
        return load_artifact(trained_ones[0])
    if trained_ones:
        names = ", ".join(sorted(path.name for path in trained_ones))
        raise ArtifactError(f"'{model}' holds several models to begin with: {names}", hint="name one of them")
    meant = Path("runs") / model
    made = "torchstone train DATA makes one, below runs/NAME/artifacts"
    if place.is_file():
        made = "tables of answers are judged with --evidence: torchstone judge --evidence BASELINE CANDIDATE"
    raise ArtifactError(
        f"'{model}' is neither an artifact nor a run with a trained model",
        hint=f"did you mean '{meant}'?" if meant.is_dir() else made,
    )


def seed_of(artifact: Artifact) -> int:
    """The seed that a trained artifact was made with, for what is built from it."""
    return int(artifact.made_by.config.get("seed", 0))


def split_runtime(model: str) -> tuple[str, str | None]:
    """``DIRECTORY@RUNTIME`` → both."""
    place, _, runtime = model.rpartition("@")
    if not place or Path(model).exists():
        return model, None
    registry.runtimes.get(runtime)
    return place, runtime
