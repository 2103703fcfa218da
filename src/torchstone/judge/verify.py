"""Recompute everything a verdict says from the files it came from, and name whatever differs.

Trust is in the files' digests and in doing the sums again: the evidence and the models are hashed, the shortlist is
chosen again and the verdict judged again with the stored budget and look, and every field of every row is compared.
The bundle's files are checked against its manifest, and the manifest against the winner.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchstone.core import files
from torchstone.core.errors import ArtifactError, TorchstoneError
from torchstone.core.run import Run, load_artifact
from torchstone.core.values import Candidate
from torchstone.core.verdict import Verdict
from torchstone.judge import select
from torchstone.judge.verdict import judge

MANIFEST = "manifest.json"
SAME = 1e-9
"""Relative difference below which two numbers are one: another CPU may round a logarithm differently."""


@dataclass(frozen=True)
class Mismatch:
    """Something printed that its evidence does not give. ``row`` is a candidate's name, 'verdict' or 'bundle'."""

    row: str
    field: str
    stored: str
    recomputed: str

    def __str__(self) -> str:
        return f"{self.row}: {self.field} is {self.stored}, recomputed {self.recomputed}"


def verify(run: Run) -> list[Mismatch]:
    """All that differs; empty when every number can be recomputed.

    Raises an ArtifactError only where there is no verdict to verify. Damage of any kind is a mismatch, not an error.
    """
    if not run.verdict.exists():
        raise ArtifactError(
            f"'{run.root}' holds no verdict", hint="name the directory of a finished run, such as runs/NAME"
        )
    try:
        stored = Verdict.load(run.verdict)
    except ArtifactError as error:
        return [Mismatch("verdict", run.verdict.name, "damaged", error.message)]
    found = [*_evidence(run, stored)]
    candidates, damaged = _candidates(run, stored)
    found += damaged
    if not damaged:
        found += _recomputed(run, stored, candidates)
    found += _bundle(run, stored, candidates)
    return found


def _evidence(run: Run, stored: Verdict) -> Iterator[Mismatch]:
    """Files whose content is not what the verdict was made from, each under the row that it belongs to."""
    owners = {row.slug: row.name for row in stored.rows}
    for name, expected in stored.evidence.items():
        now = _hash(run.root / name)
        if now != expected:
            parts = Path(name).parts
            owner = owners.get(parts[1], "verdict") if parts[0] == "evidence" and len(parts) > 1 else "verdict"
            yield Mismatch(owner, name, _short(expected), _short(now))


def _candidates(run: Run, stored: Verdict) -> tuple[list[Candidate], list[Mismatch]]:
    """The candidates of the verdict in its order; those that cannot be read whole are mismatches."""
    try:
        listed = files.read_json(run.candidates)
        damaged = []
        for entry in listed:
            try:
                load_artifact(run.root / entry["directory"])
            except TorchstoneError as error:
                damaged.append(Mismatch(str(entry["name"]), "model files", "as measured", error.message))
        if damaged:
            return [], damaged
        known = {candidate.id: candidate for candidate in run.load_candidates()}
    except TorchstoneError as error:
        return [], [Mismatch("verdict", run.candidates.name, "readable", error.message)]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        return [], [Mismatch("verdict", run.candidates.name, "a list of candidates", repr(error))]
    gone = [
        Mismatch(row.name, "candidate", _short(row.candidate_id), "not in this run")
        for row in stored.rows
        if row.candidate_id not in known
    ]
    return [known[row.candidate_id] for row in stored.rows if row.candidate_id in known], gone


def _recomputed(run: Run, stored: Verdict, candidates: list[Candidate]) -> list[Mismatch]:
    """Choose and judge again, and compare field by field."""
    try:
        if stored.selection == "named":
            shortlist = select.named(candidates, stored.shortlist, stored.procedure)
        else:
            shortlist = select.shortlist(run, candidates, stored.budget)
        again = judge(run, candidates, shortlist, stored.budget, stored.look, stored.slices)
    except TorchstoneError as error:
        return [Mismatch("verdict", "evidence", "complete", error.message)]
    except (
        Exception
    ) as error:  # whatever keeps a changed file from being read is a finding of this command, not its bug
        return [Mismatch("verdict", "evidence", "readable", f"{type(error).__name__}: {error}")]
    before, after = stored.model_dump(mode="json"), again.model_dump(mode="json")
    rows_before, rows_after = before.pop("rows"), after.pop("rows")
    for whole in (before, after):
        del whole["evidence"]  # compared with the files themselves
    found = [Mismatch("verdict", *difference) for difference in _differences("", before, after)]
    for row, old, new in zip(stored.rows, rows_before, rows_after, strict=True):
        found += [Mismatch(row.name, *difference) for difference in _differences("", old, new)]
    missing = again.evidence.keys() - stored.evidence.keys()
    return found + [Mismatch("verdict", name, "not among the evidence", "used") for name in sorted(missing)]


def _bundle(run: Run, stored: Verdict, candidates: list[Candidate]) -> list[Mismatch]:
    """The bundle's files against its manifest, and the winner's model among them."""
    if not run.bundle.is_dir():
        return [Mismatch("bundle", run.bundle.name, "of the winner", "missing")] if stored.winner else []
    try:
        manifest = files.read_json(run.bundle / MANIFEST)
        expected = {str(name): str(digest) for name, digest in manifest.items()}
    except ArtifactError as error:
        return [Mismatch("bundle", MANIFEST, "readable", error.message)]
    except AttributeError:
        return [Mismatch("bundle", MANIFEST, "an object of file names", "something else")]
    there = {path.relative_to(run.bundle).as_posix() for path in run.bundle.rglob("*") if path.is_file()} - {MANIFEST}
    found = [
        Mismatch("bundle", name, _short(digest), _short(now))
        for name, digest in sorted(expected.items())
        if (now := _hash(run.bundle / name)) != digest
    ]
    found += [Mismatch("bundle", name, "not in the manifest", "there") for name in sorted(there - expected.keys())]
    for candidate in candidates:
        if candidate.id == stored.winner:
            absent = {name for name, digest in candidate.artifact.files.items() if digest not in expected.values()}
            found += [
                Mismatch(candidate.name, f"bundle: {name}", "the judged file", "absent") for name in sorted(absent)
            ]
            break
    return found


def _differences(place: str, old: Any, new: Any) -> Iterator[tuple[str, str, str]]:
    """(field, stored, recomputed) of every leaf that differs."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from _differences(f"{place}.{key}" if place else key, old.get(key), new.get(key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, (one, other) in enumerate(zip(old, new, strict=True)):
            name = _called(one, number)
            yield from _differences(f"{place}[{name}]", one, other)
    elif isinstance(old, float) and isinstance(new, float | int):
        if not math.isclose(old, new, rel_tol=SAME, abs_tol=SAME):
            yield place, f"{old!r}", f"{new!r}"
    elif old != new:
        yield place, repr(old), repr(new)


def _called(one: Any, number: int) -> Any:
    """What stands at this place of a list: a criterion, a metric, a slice by its value, or else the number."""
    names = ("criterion", "name", "value") if isinstance(one, dict) else ()
    return next((one[name] for name in names if isinstance(one.get(name), str)), number)


def _hash(path: Path) -> str:
    try:
        return files.sha256(path)
    except OSError:
        return "missing"


def _short(digest: str) -> str:
    return digest[:12]
