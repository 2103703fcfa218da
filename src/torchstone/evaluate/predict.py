"""What a candidate answers for each image of a part, kept as evidence."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from torchstone.core import tables
from torchstone.core.console import track
from torchstone.core.contracts import ImageSet, Runner
from torchstone.core.errors import ArtifactError
from torchstone.core.machine import usable_cores
from torchstone.core.values import Candidate, Part, RuntimeOptions, Split
from torchstone.runtimes import answers_alone, open_candidate

if TYPE_CHECKING:
    from numpy.typing import NDArray

BATCH = 32
ASKED = 8
"""Images of which it is found out whether they may share a batch."""
COLUMNS = ("item", "label", "scores")


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """The answers for n images. ``header`` says whose they are and of what: candidate_id, split_fingerprint, part,
    kind (``logits``), seconds (spent inside the Runner), threads, batch."""

    items: NDArray[np.str_]
    labels: NDArray[np.int64]
    scores: NDArray[np.float32]
    """float32[n, C]"""
    header: dict[str, Any]

    def __len__(self) -> int:
        return len(self.labels)


def predict(candidate: Candidate, split: Split, part: Part, images: ImageSet, path: Path) -> Predictions:
    """Answer the images of ``part`` and store them at ``path``; answers that are there already and fit are kept.

    All usable cores work on batches of 32, whatever options the candidate is timed with; on single images where an
    answer depends on who shares the batch, as with dynamic quantisation. Raises a ValueError when ``images`` are
    not those of ``part``.
    """
    if len(images) != split.sizes.get(part, 0):
        raise ValueError(f"{len(images)} images were given for '{part}', which has {split.sizes.get(part, 0)}")
    there = kept(candidate, split, part, images, path)
    if there is not None:
        return there
    found = answer(candidate, images, part)
    store(path, dataclasses.replace(found, header={**found.header, "split_fingerprint": split.fingerprint}))
    return load(path)


def store(path: Path, found: Predictions) -> None:
    """Write predictions as ``load`` reads them."""
    table = tables.frame({"item": list(found.items), "label": found.labels.astype(np.int32), "scores": found.scores})
    tables.write(path, table, found.header)


def discard_foreign(candidate: Candidate, split: Split, part: Part, path: Path) -> None:
    """Delete what is stored at ``path`` unless it is this candidate's answers on this split."""
    try:
        header = load(path).header
    except ArtifactError:
        path.unlink(missing_ok=True)
        return
    if not _answers(header, candidate, split, part):
        path.unlink()


def answer(candidate: Candidate, images: ImageSet, part: str) -> Predictions:
    """Answer ``images`` without storing anything; ``part`` says what they are."""
    runner, options = _opened(candidate, images)
    scores = np.empty((len(images), len(candidate.artifact.classes)), np.float32)
    seconds = 0.0
    starts = range(0, len(images), options.batch)
    for start in track(starts, f"{candidate.name} on {part}", total=len(starts)):
        batch = images.images(slice(start, start + options.batch))
        before = time.perf_counter()
        scores[start : start + len(batch)] = runner(batch)["logits"]
        seconds += time.perf_counter() - before
    header = {
        "candidate_id": candidate.id,
        "part": part,
        "kind": "logits",
        "seconds": seconds,
        "threads": options.threads,
        "batch": options.batch,
    }
    return Predictions(items=np.asarray(images.items), labels=images.labels, scores=scores, header=header)


def _opened(candidate: Candidate, images: ImageSet) -> tuple[Runner, RuntimeOptions]:
    """The candidate on all cores, with the batch in which it answers."""
    for batch in (min(BATCH, len(images)), 1):
        options = candidate.options.model_copy(update={"threads": usable_cores(), "batch": batch})
        runner = open_candidate(candidate.model_copy(update={"options": options}))
        if batch == 1 or answers_alone(runner, images.images(slice(ASKED))):
            break
    return runner, options


def load(path: Path) -> Predictions:
    """Stored predictions; an ArtifactError when the file is missing, damaged or holds something else."""
    table, header = tables.read(path)
    if tuple(table.columns) != COLUMNS or header.get("kind") != "logits":
        raise ArtifactError(
            f"'{path}' does not hold predictions", hint="delete it and type the command that made it again"
        )
    return Predictions(
        items=table["item"].to_numpy(),
        labels=table["label"].to_numpy().astype(np.int64),
        scores=table["scores"].to_numpy(),
        header=header,
    )


def kept(candidate: Candidate, split: Split, part: Part, images: ImageSet, path: Path) -> Predictions | None:
    """What is stored at ``path``, if it answers exactly this question."""
    if not path.exists():
        return None
    try:
        stored = load(path)
    except ArtifactError:
        return None
    fits = _answers(stored.header, candidate, split, part) and list(stored.items) == list(images.items)
    return stored if fits else None


def _answers(header: dict[str, Any], candidate: Candidate, split: Split, part: Part) -> bool:
    """Whether stored predictions with this header are this candidate's on this part of this split."""
    wanted = {"candidate_id": candidate.id, "split_fingerprint": split.fingerprint, "part": part}
    return all(header.get(key) == value for key, value in wanted.items())
