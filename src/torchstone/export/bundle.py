"""The bundle: what is served. A directory that holds the model, its preprocessing, its labels, golden images to prove
itself on, what validation's images looked like to it, and for an INT8 or BF16 model the FP32 one to fall back on; every
file is named in the manifest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from torchstone.core import files
from torchstone.core.artifact import load_artifact
from torchstone.core.contracts import ImageSet
from torchstone.core.errors import ArtifactError
from torchstone.core.run import MANIFEST
from torchstone.core.values import Artifact, Candidate
from torchstone.export import reference
from torchstone.runtimes import golden, open_candidate

FALLBACK = "fallback"
CANDIDATE = "candidate.json"


def write(
    winner: Candidate, fallback: Candidate | None, place: Path, *, val: Callable[[Artifact], ImageSet] | None = None
) -> Path:
    """Write the bundle of ``winner`` at ``place``, whole or not at all, and prove it on its golden images.

    ``val`` gives validation's images as an artifact sees them; without it the bundle has no reference, and a server
    notices no drift.
    """
    with files.whole_directory(place) as directory:
        _fill(directory, winner)
        both = {directory: winner}
        if fallback is not None and fallback.id != winner.id:
            _fill(directory / FALLBACK, fallback)
            both[directory / FALLBACK] = fallback
        for part, candidate in both.items():
            if val is not None:
                reference.write(part, candidate, val(candidate.artifact))
        names = sorted(path.relative_to(directory) for path in directory.rglob("*") if path.is_file())
        files.write_json(directory / MANIFEST, {name.as_posix(): files.sha256(directory / name) for name in names})
    return place


def load(directory: Path) -> Candidate:
    """The candidate that a bundle serves, after checking that its model is the one that was stored."""
    path = directory / CANDIDATE
    if not path.is_file():
        raise ArtifactError(
            f"'{directory}' is not a bundle",
            hint="what passes 'torchstone run' leaves runs/NAME/bundle; 'torchstone import' makes one of an ONNX model",
        )
    artifact = load_artifact(directory)
    return Candidate.described(artifact, files.read_json(path), path)


def _fill(directory: Path, candidate: Candidate) -> None:
    """One model with all that belongs to it. The golden logits are those of this very candidate, which has to reproduce
    the ones of its artifact first, and its own again from the copied files."""
    artifact = candidate.artifact
    golden.check(artifact.directory, artifact.preprocess, open_candidate(candidate))
    files.make_directory(directory)
    for name in artifact.files:
        files.link_or_copy(artifact.directory / name, directory / name)
    artifact.save(directory / "artifact.json")
    artifact.preprocess.save(directory / "preprocess.json")
    files.write_json(directory / "labels.json", list(artifact.classes))
    files.write_json(directory / CANDIDATE, candidate.description)
    golden.copy(artifact.directory, directory, candidate)
    golden.check(directory, artifact.preprocess, open_candidate(load(directory)))


def needs_fallback(winner: Candidate) -> bool:
    """Whether another CPU may answer differently: INT8 and BF16 do, the unchanged FP32 weights do not."""
    return not (winner.free and winner.options.precision == "f32")


def fallback_among(candidates: Sequence[Candidate]) -> Candidate | None:
    """The FP32 candidate that any CPU can serve with the baseline's answers (``candidates[0]``): ONNX before others."""
    plain = [one for one in candidates if one.repeats(candidates[0])]
    by_format: dict[str, Candidate] = {one.artifact.format: one for one in reversed(plain)}
    return by_format.get("onnx") or by_format.get("openvino")
