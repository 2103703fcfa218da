"""What a verdict on stored answers was made of, in a directory of its own: from it, every number can be recomputed.

    baseline.parquet  candidate-1.parquet …   item, label, prediction; group where items belong together; scores
                                              where the margin is about a metric that is made of them; in the
                                              baseline's slice_COLUMN, the slice of each item
    ledger.json                               the looks at this test set, up to this one
    environment.json                          versions and machine
    verdict.json                              the verdict, with the digests of the others

A table holds what was understood of the file that it comes from, in one order and one spelling: it can be judged
without that file, by torchstone or by anything that reads Parquet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from torchstone.core import environment, files, tables
from torchstone.core.errors import ArtifactError, ConfigError, TorchstoneError
from torchstone.judge import answers, bootstrap, external, ledger, matching
from torchstone.judge.answers import Told
from torchstone.judge.differences import Mismatch, differences, hashed, short
from torchstone.judge.external import EvidenceVerdict
from torchstone.judge.matching import Case
from torchstone.judge.slices import Column
from torchstone.judge.stored_metrics import BY_SCORES

BASELINE = "baseline.parquet"
LEDGER = "ledger.json"
ENVIRONMENT = "environment.json"
VERDICT = "verdict.json"
SLICE = "slice_"
"""What a column's name begins with that holds slices."""


def table_of(number: int) -> str:
    """The file of the answers that stand in this row of the verdict."""
    return f"candidate-{number}.parquet" if number else BASELINE


def is_one(place: Path) -> bool:
    """Whether ``place`` is such a directory, be it damaged; a run, which has its data beside its verdict, is none."""
    return not (place / "data").exists() and any((place / name).is_file() for name in (BASELINE, LEDGER))


def check_place(place: Path, used: Sequence[Path], answers_read: Sequence[str]) -> None:
    """Refuse to replace what is no evidence, what is ``used`` (the files that are read, the ledger), or the evidence of
    other answers than those with the digests ``answers_read``, in this order. To be asked before the test set is looked
    at."""
    for path in used:
        if place.resolve() in (path.resolve(), *path.resolve().parents):
            raise ConfigError(
                f"--out '{place}' would replace the directory of '{path}'", hint="name a directory of its own"
            )
    if place.exists() and not place.is_dir():
        raise ConfigError(f"--out '{place}' is a file", hint="name a directory")
    strange = sorted(path.name for path in place.iterdir() if not _ours(path.name)) if place.is_dir() else []
    if strange:
        raise ArtifactError(
            f"'{place}' holds '{strange[0]}', which is no part of evidence", hint="choose another --out"
        )
    if (place / VERDICT).is_file():
        rows = EvidenceVerdict.load(place / VERDICT).rows
        if [row.sha256 for row in rows] != list(answers_read):
            raise ArtifactError(
                f"'{place}' holds the evidence of other answers: {', '.join(row.file for row in rows)}",
                hint="choose another --out, or remove it first",
            )


def write(place: Path, case: Case, verdict: EvidenceVerdict, looks: Mapping[str, Any]) -> EvidenceVerdict:
    """The directory at ``place``, whole or not at all; what an earlier verdict left there is replaced. ``looks`` is
    ``ledger.stored``. Returns the verdict with the digests of what it rests on."""
    with files.whole_directory(place) as partial:
        for number, (one, row) in enumerate(zip(case.answers, verdict.rows, strict=True)):
            columns: dict[str, Any] = {
                "item": one.items.tolist(),
                "label": [case.classes[label] for label in one.labels],
                "prediction": [case.classes[answer] for answer in one.predicted],
            }
            if case.groups is not None:
                columns["group"] = [str(group) for group in case.groups]
            if number == 0:
                columns |= {SLICE + sliced.name: sliced.values.tolist() for sliced in case.sliced}
            header: dict[str, Any] = {
                "name": row.name,
                "file": row.file,
                "sha256": row.sha256,
                "columns": dict(one.told.columns),
            }
            if one.told_scores is not None:
                columns["scores"] = one.told_scores.values
                header["classes"] = list(one.told_scores.classes)
            tables.write(partial / table_of(number), tables.frame(columns), header)
        files.write_json(partial / LEDGER, looks)
        environment.here().save(partial / ENVIRONMENT)
        digests = {path.name: files.sha256(path) for path in sorted(partial.iterdir())}
        verdict = verdict.model_copy(update={"evidence": digests})
        verdict.save(partial / VERDICT)
    return verdict


def verify(place: Path) -> list[Mismatch]:
    """All that differs from what the files say; empty when every number can be recomputed. Damage of any kind is a
    mismatch, not an error."""
    try:
        stored = EvidenceVerdict.load(place / VERDICT)
    except ArtifactError as error:
        return [Mismatch("verdict", VERDICT, "damaged", error.message)]
    return [*_files(place, stored), *_recomputed(place, stored)]


def _files(place: Path, stored: EvidenceVerdict) -> Iterator[Mismatch]:
    """Files whose content is not what it was, are missing, or were never part of it."""
    expected = {*(table_of(number) for number in range(len(stored.rows))), LEDGER, ENVIRONMENT}
    there = {path.name for path in place.iterdir()} - {VERDICT}
    for name in sorted(expected | there | stored.evidence.keys()):
        then, now = stored.evidence.get(name), hashed(place / name)
        if then != now:
            yield Mismatch("verdict", name, "not among the evidence" if then is None else short(then), short(now))


def _recomputed(place: Path, stored: EvidenceVerdict) -> Iterator[Mismatch]:
    cannot = bootstrap.cannot_redraw(stored.draws)
    try:
        metric = stored.budget.metric
        tables_there = (place / table_of(number) for number in range(len(stored.rows)))
        read = (_told(path, scores=metric in BY_SCORES, slices=stored.slices) for path in tables_there)
        told, names = zip(*read, strict=True)
        case = _sliced(matching.case(told, metric), told[0], stored.slices)
        question = external.question(case, stored.budget, stored.procedure)
        counted = list(_look(files.read_json(place / LEDGER), question, stored.look))
        drawn = stored.rows if cannot else None
        again = external.judge(case, names, stored.budget, stored.look, stored.procedure, drawn=drawn)
    except TorchstoneError as error:
        yield Mismatch("verdict", "evidence", "complete", error.message)
        return
    except Exception as error:  # whatever keeps a changed file from being read is a finding of this command
        yield Mismatch("verdict", "evidence", "readable", f"{type(error).__name__}: {error}")
        return
    yield from counted
    before, after = (whole.model_dump(mode="json", exclude={"evidence"}) for whole in (stored, again))
    rows = zip(stored.rows, before.pop("rows"), after.pop("rows"), strict=True)
    for whole in (before, after):
        if cannot:
            del whole["draws"]
        elif whole["draws"] is not None:
            del whole["draws"]["numpy"]  # another version with the same stream draws the same
    yield from (Mismatch("verdict", *difference) for difference in differences("", before, after))
    for row, old, new in rows:
        if cannot and row.metric is not None and bootstrap.are_drawn([row.metric]):
            yield Mismatch(row.name, f"the bounds of {row.metric.name}", "drawn", "taken as they are", cannot)
        yield from (Mismatch(row.name, *difference) for difference in differences("", old, new))


def _told(path: Path, *, scores: bool, slices: Sequence[str]) -> tuple[Told, str]:
    """The answers of a table under the name of the file that they came from, and what that was called."""
    told = answers.read(path, scores=scores, beside=[SLICE + name for name in slices])
    origin = told.header
    if lacking := {"file", "sha256", "name"} - origin.keys():
        raise ArtifactError(
            f"'{path.name}' was written by something else: it does not say where its answers came from "
            f"({', '.join(sorted(lacking))})"
        )
    return replace(told, path=Path(origin["file"]), sha256=origin["sha256"]), str(origin["name"])


def _sliced(case: Case, baseline: Told, names: Sequence[str]) -> Case:
    """The case with the slices as they were stored: they are not cut again."""
    if missing := [name for name in names if SLICE + name not in baseline.beside]:
        raise ArtifactError(f"'{BASELINE}' does not hold the slices of '{missing[0]}'")
    rows = {item: row for row, item in enumerate(baseline.items)}
    order = [rows[item] for item in case.answers[0].items.tolist()]
    cells = {name: baseline.beside[SLICE + name] for name in names}
    columns = (Column(name, np.array([str(own[row]) for row in order])) for name, own in cells.items())
    return replace(case, sliced=tuple(columns))


def _look(looks: Any, question: Mapping[str, Any], look: int) -> Iterator[Mismatch]:
    """Whether the ledger counts this question as this look, and is itself as it was written."""
    found = None
    for row in ledger.rows(looks, LEDGER):
        asked = {name: value for name, value in row.items() if name not in ("digest", "look", "at")}
        if (digest := files.digest(asked)) != row["digest"]:
            yield Mismatch("verdict", f"{LEDGER}: look {row['look']}", short(row["digest"]), short(digest))
        if asked == question:
            found = row["look"]
    if found != look:
        yield Mismatch("verdict", "look", str(look), "not in the ledger" if found is None else str(found))


def _ours(name: str) -> bool:
    return name in (BASELINE, LEDGER, ENVIRONMENT, VERDICT) or (
        name.startswith("candidate-") and name.endswith(".parquet")
    )
