"""Judge answers that are stored in tables, whichever tool wrote them. Nothing is run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torchstone.core import console
from torchstone.core.run import Run
from torchstone.core.values import Budget
from torchstone.core.verdict import Procedure
from torchstone.judge import answers, evidence_directory, external, ledger, matching, power, stored_metrics
from torchstone.judge.answers import Told
from torchstone.judge.evidence import Evidence
from torchstone.judge.external import EvidenceVerdict

LEDGER = "ledger"


def judge_evidence(
    baseline: str | Path,
    candidates: Sequence[str | Path],
    budget: Budget,
    *,
    ledger_dir: Path | None = None,
    unordered: bool = False,
    slices: Sequence[str] = (),
    out: Path | None = None,
) -> EvidenceVerdict:
    """Judge stored answers against those of the baseline, in the order given, or all of them at levels split by Holm
    where they are ``unordered``.

    Each is a CSV, TSV, JSONL or Parquet file, or a directory that holds one (``answers.read`` says what is in it). The
    looks at this test set are counted in ``ledger_dir``: by default the folder ``ledger`` beside the baseline's file,
    or, if that is of a run's test images, the run's own. Of the budget, the drop, its metric and the confidence count:
    AUROC and the calibration error need scores, macro F1 does not. ``slices`` are columns whose values are looked at
    one by one: of the first file that has them; of a run's test predictions, of its catalog. ``out`` is a directory to
    write, from which ``verify`` recomputes the verdict (``judge.evidence_directory``).
    """
    names = [str(place) for place in (baseline, *candidates)]
    scores = budget.metric in stored_metrics.BY_SCORES
    slices = tuple(dict.fromkeys(slices))
    told = [answers.read(Path(name), scores=scores, beside=slices) for name in names]
    for one in told:
        console.say(one.understood)
        if (part := one.header.get("part", "test")) != "test":
            console.say(f"note: {one.path} holds answers on {part}, by which models are chosen: they prove little")
    run = _run_of(told[0])
    case = matching.case(told, budget.metric)
    for note in case.notes:
        console.say(f"note: {note}")
    items = case.answers[0].items
    if run is None:
        case = replace(case, sliced=matching.sliced(told, items.tolist(), slices))
        for note in matching.slice_notes(told, items.tolist(), slices):
            console.say(f"note: {note}")
    else:  # what belongs together stands in its catalog, and so does what one may slice by
        evidence = Evidence(run)
        evidence.check_columns(slices)
        case = replace(case, groups=evidence.groups(items), sliced=evidence.sliced(slices, items))
    place, tests, earlier = _book(run, told[0], case, ledger_dir)
    if out is not None:
        evidence_directory.check_place(out, [*(one.path for one in told), place], [one.sha256 for one in told])
    procedure: Procedure = "holm" if unordered else "fixed-order"
    look = ledger.look(place, tests, external.question(case, budget, procedure), earlier)
    level = ledger.level(budget.confidence, look)
    for line in power.foreseen(case.images, case.groups, budget, look, level):
        console.say(line)
    verdict = external.judge(case, names, budget, look, procedure)
    return verdict if out is None else evidence_directory.write(out, case, verdict, ledger.stored(place, tests))


def _book(
    run: Run | None, baseline: Told, case: matching.Case, ledger_dir: Path | None
) -> tuple[Path, str, tuple[str, ...]]:
    """Where looks at this test set are counted, by which fingerprint, and after which test sets.

    A run's test images have a ledger already: a look at their stored answers is a look at them.
    """
    if run is None:
        return ledger_dir or baseline.path.parent / LEDGER, case.fingerprint, ()
    split = run.split()
    return ledger_dir or run.ledger, split.test_fingerprint, split.earlier_tests


def _run_of(baseline: Told) -> Run | None:
    """The run whose test predictions these are, None for any other table."""
    if baseline.header.get("part") != "test" or len(baseline.path.resolve().parents) < 3:
        return None
    run = Run(baseline.path.resolve().parents[2])
    if not (run.data / "split.json").is_file():
        return None
    return run if run.split().fingerprint == baseline.header.get("split_fingerprint") else None
