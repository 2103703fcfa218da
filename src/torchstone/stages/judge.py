"""From candidates to a verdict: screen, choose who meets the test set, time them afresh, and ask the judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from torchstone.core import console, environment, files
from torchstone.core.errors import ArtifactError, ConfigError
from torchstone.core.run import Run, run_of
from torchstone.core.seeding import sample_rows
from torchstone.core.values import Budget, Candidate
from torchstone.core.verdict import Verdict
from torchstone.data.split import items_of
from torchstone.evaluate import portrait, predict
from torchstone.judge import ledger, power, select, tail
from torchstone.judge import verdict as verdicts
from torchstone.judge.evidence import Evidence
from torchstone.judge.select import Shortlist
from torchstone.stages import clock, screening
from torchstone.stages.compress import build_all, distinct, plan_all
from torchstone.stages.find import candidate_of, find_artifact, seed_of, split_runtime
from torchstone.stages.publish import publish
from torchstone.stages.read import Data, opened

SESSIONS = 3
"""Timing sessions that are tried until one has a clean control."""


@dataclass(frozen=True, kw_only=True)
class Measuring:
    """How much is measured of what meets the test set."""

    quartets: int = 16
    """Of each comparison."""
    portraits: bool = True
    """Whether single calls, all threads, whole requests and memory are looked at, too."""


MEASURING = Measuring()


def announce(data: Data, budget: Budget) -> None:
    """Say, before anything is trained, which margins this test set can show at its next look."""
    if data.run.verdict.exists():
        return
    look = ledger.looks(data.run.ledger, data.split.test_fingerprint, data.split.earlier_tests) + 1
    groups = Evidence(data.run).groups(np.array(items_of(data.split, "test")))
    for line in power.foreseen(data.split.sizes["test"], groups, budget, look, ledger.level(budget.confidence, look)):
        console.say(line)


def shortlist(data: Data, candidates: Sequence[Candidate], budget: Budget) -> Shortlist:
    """Who meets the test set, by val predictions and a screening session. What was chosen once for the same candidates
    and budget stays chosen: an interrupted run must not choose again after a look."""
    path = data.run.root / "shortlist.json"
    question = files.digest([[one.id for one in candidates], budget.digest(), data.split.fingerprint])
    timed = all(data.run.timings(one).exists() for one in candidates[1:])
    if not (timed and path.exists() and files.read_json(path)["question"] == question):
        console.say(f"screening {len(candidates)} candidates")
        data.run.retract()
        screening.screen(data, candidates[0], candidates[1:], budget)
        files.write_json(path, {"question": question})
    screening.answer(data, candidates)
    return select.shortlist(data.run, candidates, budget)


def finished(data: Data, candidates: Sequence[Candidate], budget: Budget) -> Verdict | None:
    """The stored verdict, if it answers this question, its evidence is untouched, and its report, which is written
    last, is there."""
    run = data.run
    if not (run.verdict.exists() and run.report.exists()):
        return None
    try:
        stored = Verdict.load(run.verdict)
        same = (
            [row.candidate_id for row in stored.rows] == [one.id for one in candidates]
            and stored.budget == budget
            and stored.test_fingerprint == data.split.test_fingerprint
            and all(files.sha256(run.root / name) == digest for name, digest in stored.evidence.items())
        )
    except (ArtifactError, FileNotFoundError):
        return None
    if not same:
        return None
    console.say("this run is finished; nothing was measured again")
    return stored


def decide(
    data: Data,
    candidates: Sequence[Candidate],
    chosen: Shortlist,
    budget: Budget,
    how: Measuring,
    slices: Sequence[str] = (),
) -> Verdict:
    """Time the shortlist in a fresh session, let it meet the test set by its procedure, and store the verdict."""
    run = data.run
    run.retract()
    for candidate in candidates:
        run.portrait(candidate).unlink(missing_ok=True)
        predict.discard_foreign(candidate, data.split, "test", run.predictions(candidate, "test"))
    timed = [one for one in candidates[1:] if one.id in chosen.order]
    if timed:
        console.say(f"timing {', '.join(one.name for one in timed)}")
        environment.here().save(run.environment)
        clock.controlled(data, candidates, timed, chosen.free_rival, "judged", how.quartets, SESSIONS)
    question = ledger.entry(candidates[0], chosen.order, budget, chosen.procedure)
    tests = data.split.test_fingerprint, data.split.earlier_tests
    look = ledger.look(run.ledger, tests[0], question, tests[1]) if timed else max(1, ledger.looks(run.ledger, *tests))
    by_id = {one.id: one for one in candidates}
    evidence = Evidence(run)
    verdict = verdicts.judge(run, candidates, chosen, budget, look, slices, evidence=evidence)
    while (candidate_id := verdicts.next_to_test(verdict)) is not None:
        candidate = by_id[candidate_id]
        images = data.sets(candidate.artifact, "test")["test"]
        predict.predict(candidate, data.split, "test", images, run.predictions(candidate, "test"))
        verdict = verdicts.judge(run, candidates, chosen, budget, look, slices, evidence=evidence)
    met = [
        one
        for one in candidates
        if run.predictions(one, "test").exists() and one.id in (candidates[0].id, *chosen.order)
    ]
    if how.portraits and timed and met:
        _portray(data, met, max(row.level for row in verdict.rows))
        verdict = verdicts.judge(run, candidates, chosen, budget, look, slices, evidence=evidence)
    run.save_candidates(list(candidates))
    verdict.save(run.verdict)
    for row in verdict.rows:  # said before the bundle and the report are written, which takes another while
        if row.candidate_id in chosen.order:
            console.say(f"{row.name}: {row.outcome}: {row.reason}")
    return verdict


def _portray(data: Data, candidates: Sequence[Candidate], level: float) -> None:
    """Single calls of what met the test set, so many that a p99 has its bound at ``level``: one thread and all of them,
    whole requests, memory."""
    calls = tail.calls_needed(0, 0, tail.SHARE, level)
    assert calls is not None
    images = data.sets(candidates[0].artifact, "val")["val"]
    encoded = [images.encoded(int(row)) for row in sample_rows(images.labels, clock.IMAGES, "timing")]
    for key, (table, header) in portrait.portraits(candidates, clock.pixels(data, candidates), encoded, calls).items():
        candidate = next(one for one in candidates if one.id == key)
        portrait.store(data.run.portrait(candidate), table, header)


def judge(
    baseline: str,
    named: Sequence[str],
    budget: Budget,
    *,
    how: Measuring = MEASURING,
    threads: int = 1,
    unordered: bool = False,
    slices: Sequence[str] = (),
) -> tuple[Run, Verdict]:
    """Judge stored models in the order given, or all of them at levels split by Holm where they are ``unordered``.
    ``named`` are artifact directories, with ``@RUNTIME`` behind them if wanted, or chains of the baseline, which are
    built where they are not yet; what is larger than the budget allows does not meet the test set. ``slices`` are
    columns of the catalog whose values are looked at one by one. The verdict, the bundle and the report of the
    run are then those of this judgement."""
    place, runtime = split_runtime(baseline)
    artifact = find_artifact(place)
    first = candidate_of(artifact, artifact.chain or artifact.format, runtime, threads)
    data = opened(run_of(artifact))
    slices = tuple(dict.fromkeys(slices))
    Evidence(data.run).check_columns(slices)
    with files.locked(data.run.root):
        candidates = [first, *distinct([_find(name, first, data, threads) for name in named])]
        if any(one.id == first.id for one in candidates[1:]):
            raise ConfigError(f"the baseline '{first.name}' is named as its own candidate",
                              hint="name what was made of it: a chain, or another artifact")  # fmt: skip
        procedure = "holm" if unordered else "fixed-order"
        oversized = select.oversized(candidates, budget)
        order = [one.id for one in candidates[1:] if one.id not in oversized]
        chosen = select.named(candidates, order, procedure, oversized)
        verdict = decide(data, candidates, chosen, budget, how, slices)
        publish(data, candidates, verdict)
        return data.run, verdict


def _find(name: str, baseline: Candidate, data: Data, threads: int) -> Candidate:
    """The candidate behind an artifact directory or a chain."""
    place, runtime = split_runtime(name)
    try:
        artifact = find_artifact(place)
    except ArtifactError as not_there:
        if "/" in name:
            raise not_there from None
        plans = plan_all([name], baseline.artifact.format)
        return build_all(plans, baseline, data, seed=seed_of(baseline.artifact))[0]
    if run_of(artifact).root.resolve() != data.run.root.resolve():
        raise ArtifactError(
            f"'{name}' lies in another run than the baseline",
            hint="both must have been made from the same split: build the chain with torchstone compress",
        )
    return candidate_of(artifact, artifact.chain or artifact.format, runtime, threads)
