"""The stored files that a verdict is made of; each one that is read is noted with its sha256."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torchstone.core import files
from torchstone.core.errors import ArtifactError
from torchstone.core.run import Run
from torchstone.core.values import Candidate, Part
from torchstone.evaluate import predict, timing


class Evidence:
    """Reads a run's predictions and timings, each once. ``digests``: file below the run: its sha256 as it was read."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.split = run.split()
        self.digests: dict[str, str] = {}
        self._read: dict[Path, Any] = {}
        self._note(run.data / "split.json")

    def predictions(self, candidate: Candidate, part: Part) -> predict.Predictions | None:
        """The candidate's answers on ``part``, None when there are none yet; an ArtifactError when they are another
        candidate's, another split's or not for every image."""
        path = self.run.predictions(candidate, part)
        if path not in self._read:
            if not path.exists():
                return None
            self._note(path)
            self._read[path] = found = predict.load(path)
            expected = {"candidate_id": candidate.id, "split_fingerprint": self.split.fingerprint, "part": part}
            for key, value in expected.items():
                if found.header.get(key) != value:
                    raise _foreign(path, f"its {key} is '{found.header.get(key)}', not '{value}'")
            if len(found.labels) != self.split.sizes[part]:
                raise _foreign(path, f"it answers {len(found.labels)} of {self.split.sizes[part]} images")
        return self._read[path]

    def timings(self, candidate: Candidate) -> Any | None:
        """The candidate's timings table, None when it was not timed."""
        path = self.run.timings(candidate)
        if path not in self._read:
            if not path.exists():
                return None
            self._note(path)
            self._read[path] = timing.load_timings(path)
        return self._read[path]

    def artifact(self, candidate: Candidate) -> None:
        """Note the candidate's artifact.json, which holds the digests of the model's files."""
        self._note(candidate.artifact.directory / "artifact.json")

    def _note(self, path: Path) -> None:
        place = path.resolve().relative_to(self.run.root.resolve())
        self.digests[place.as_posix()] = files.sha256(path)


def _foreign(path: Path, reason: str) -> ArtifactError:
    return ArtifactError(
        f"'{path}' does not belong to this candidate and split: {reason}",
        hint="delete it and type the command that made it again",
    )
