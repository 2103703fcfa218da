"""Recompute everything a verdict says from the files it came from, and name whatever differs.

Trust is in the files' digests and in doing the sums again: the evidence and the models are hashed, the shortlist is
chosen again and the verdict judged again with the stored budget and look, and every field of every row is compared.
The bundle's files are checked against its manifest, and the manifest against the winner.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from torchstone.core import files
from torchstone.core.errors import ArtifactError, TorchstoneError
from torchstone.core.run import MANIFEST, Run, load_artifact
from torchstone.core.values import Candidate
from torchstone.core.verdict import Verdict
from torchstone.judge import bootstrap, select
from torchstone.judge.differences import Mismatch, differences, hashed, short
from torchstone.judge.verdict import judge


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
        now = hashed(run.root / name)
        if now != expected:
            parts = Path(name).parts
            owner = owners.get(parts[1], "verdict") if parts[0] == "evidence" and len(parts) > 1 else "verdict"
            yield Mismatch(owner, name, short(expected), short(now))


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
        Mismatch(row.name, "candidate", short(row.candidate_id), "not in this run")
        for row in stored.rows
        if row.candidate_id not in known
    ]
    return [known[row.candidate_id] for row in stored.rows if row.candidate_id in known], gone


def _recomputed(run: Run, stored: Verdict, candidates: list[Candidate]) -> list[Mismatch]:
    """Choose and judge again, and compare field by field. What was drawn from another stream than this numpy's is taken
    as it is, and said."""
    cannot = bootstrap.cannot_redraw(stored.draws)
    unsure = cannot if stored.budget.metric != "top1" and stored.selection == "val" else None
    try:
        if stored.selection == "named":
            shortlist = select.named(
                candidates, stored.shortlist, stored.procedure, select.oversized(candidates, stored.budget)
            )
        else:
            shortlist = select.shortlist(run, candidates, stored.budget)
            if unsure and shortlist.order != stored.shortlist:  # chosen by bounds that were drawn on val
                order = (_names(stored, stored.shortlist), _names(stored, shortlist.order))
                return [Mismatch("verdict", "shortlist", *order, cannot)]
        drawn = stored.rows if cannot else None
        again = judge(run, candidates, shortlist, stored.budget, stored.look, stored.slices, drawn=drawn)
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
        if whole["draws"] is not None:
            del whole["draws"]["numpy"]  # another version with the same stream draws the same
    if cannot:
        del before["draws"], after["draws"]
    found = [Mismatch("verdict", *difference) for difference in differences("", before, after)]
    for row, old, new in zip(stored.rows, rows_before, rows_after, strict=True):
        if cannot and (names := [one.name for one in row.metrics if one.name != "top1" and one.upper is not None]):
            found.append(Mismatch(row.name, f"the bounds of {', '.join(names)}", "drawn", "taken as they are", cannot))
        for field, was, now in differences("", old, new):
            drawn_on_val = unsure if row.outcome == "not tested" and field == "reason" else None
            found.append(Mismatch(row.name, field, was, now, drawn_on_val))
    missing = again.evidence.keys() - stored.evidence.keys()
    return found + [Mismatch("verdict", name, "not among the evidence", "used") for name in sorted(missing)]


def _names(stored: Verdict, order: Sequence[str]) -> str:
    return ", ".join(stored.row(one).name for one in order)


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
        Mismatch("bundle", name, short(digest), short(now))
        for name, digest in sorted(expected.items())
        if (now := hashed(run.bundle / name)) != digest
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
