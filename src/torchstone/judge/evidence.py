"""The stored files that a verdict is made of; each one that is read is noted with its sha256."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchstone.core import files, tables
from torchstone.core.errors import ArtifactError, ConfigError, nearest
from torchstone.core.run import Run
from torchstone.core.values import Candidate, Part
from torchstone.evaluate import portrait, predict, timing
from torchstone.judge import slices
from torchstone.judge.bootstrap import Metrics


class Evidence:
    """Reads a run's predictions and timings, each once. ``digests``: file below the run: its sha256 as it was read.
    ``drawn``: what the bootstrap drew of a candidate's test answers, by its id: it is asked for again after each
    candidate that was predicted, and by Holm at several levels."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.split = run.split()
        self.digests: dict[str, str] = {}
        self.drawn: dict[str, Metrics] = {}
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

    def portrait(self, candidate: Candidate) -> tuple[Any, dict[str, Any]] | None:
        """The candidate's single calls and their session, None when none were timed."""
        path = self.run.portrait(candidate)
        if path not in self._read:
            if not path.exists():
                return None
            self._note(path)
            self._read[path] = portrait.load(path, candidate)
        return self._read[path]

    def columns(self, names: Sequence[str], items: NDArray[np.str_]) -> list[list[Any]]:
        """For each named column of the catalog, its cells for these items. Raises an ArtifactError where it does not
        hold one of them."""
        path = self.run.catalog_table
        table, _ = tables.read(path, ["item", *(name for name in dict.fromkeys(names) if name != "item")])
        self._note(path)
        rows = {item: row for row, item in enumerate(table["item"].to_list())}
        try:
            chosen = [rows[item] for item in items.tolist()]
        except KeyError as missing:
            raise ArtifactError(
                f"'{path}' does not hold the image {missing}, which was predicted",
                hint="delete the evidence and type the same command again",
            ) from None
        return [table[name].gather(chosen).to_list() for name in names]

    def check_columns(self, names: Sequence[str]) -> None:
        """Raise the ConfigError of a column that the catalog does not have."""
        if names:
            _, first = tables.peek(self.run.catalog_table)
            for name in names:
                if name not in first.columns:
                    raise ConfigError(f"the catalog has no column '{name}'", hint=nearest(name, first.columns))

    def sliced(self, names: Sequence[str], items: NDArray[np.str_]) -> tuple[slices.Column, ...]:
        """Columns of the catalog to slice by."""
        cells = self.columns(names, items) if names else []
        return tuple(slices.column(name, found) for name, found in zip(names, cells, strict=True))

    def groups(self, items: NDArray[np.str_]) -> NDArray[np.int64] | None:
        """A number for each item, the same for items of one group; None where no two of them share a group."""
        (names,) = self.columns(["group"], items)
        numbers: dict[Any, int] = {}
        found = [numbers.setdefault((row,) if name is None else name, len(numbers)) for row, name in enumerate(names)]
        return np.array(found, np.int64) if len(numbers) < len(found) else None

    def artifact(self, candidate: Candidate) -> None:
        """Note the candidate's artifact.json, which holds the digests of the model's files."""
        self._note(candidate.artifact.directory / "artifact.json")

    def _note(self, path: Path) -> None:
        self.digests[self._place(path)] = files.sha256(path)

    def _place(self, path: Path) -> str:
        return path.resolve().relative_to(self.run.root.resolve()).as_posix()


def _foreign(path: Path, reason: str) -> ArtifactError:
    return ArtifactError(
        f"'{path}' does not belong to this candidate and split: {reason}",
        hint="delete it and type the command that made it again",
    )
