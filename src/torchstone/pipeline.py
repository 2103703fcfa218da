"""From a folder of images to a bundle that passed: the stages, in their order."""

from __future__ import annotations

from pathlib import Path

from torchstone import judgement, report, stages
from torchstone.config import Settings
from torchstone.core import console, files
from torchstone.core.run import Run
from torchstone.core.values import Candidate
from torchstone.core.verdict import Verdict
from torchstone.export import bundle
from torchstone.judge import ledger


def run(settings: Settings) -> Verdict:
    """Read, split, train, build the candidates, judge them, write the bundle and the report.

    The same settings find the same run: what is finished is taken as it stands, and a finished run is not measured
    again. Raises UserErrors for what cannot be done, where possible before anything is trained.
    """
    plans = stages.ladder(settings)
    where = settings.run
    with files.locked(where.root):
        console.say(f"run {where.root}")
        data = stages.read(settings)
        looks = ledger.looks(where.ledger, data.split.test_fingerprint)
        judgement.announce(data.split.sizes["test"], settings.budget, looks)
        baseline = stages.baseline_of(stages.trained(settings, data), settings.threads)
        built = stages.build_all(plans, baseline, data, seed=settings.seed, skip_impossible=not settings.chain)
        candidates = [baseline, *built]
        finished = judgement.finished(data, candidates, settings.budget)
        if finished is not None:
            console.say("this run is finished; nothing was measured again")
            return finished
        chosen = judgement.shortlist(data, candidates, settings.budget)
        verdict = judgement.decide(data, candidates, chosen, settings.budget, settings.quartets)
        publish(where, candidates, verdict)
        return verdict


def publish(where: Run, candidates: list[Candidate], verdict: Verdict) -> None:
    """The bundle of the winner, if there is one, and the report."""
    winner = next((one for one in candidates if one.id == verdict.winner), None)
    if winner is None:
        files.remove(where.bundle)
    else:
        bundle.write(winner, bundle.fallback_for(winner, candidates), where.bundle)
    report.write(where)


def demo_settings(runs: Path = Path("runs")) -> Settings:
    """The main job on scikit-learn's digits: LeNet-5, 648 test images, at most one point lost."""
    return Settings(data="digits", name="demo", runs=runs, model="lenet5", test_fraction=0.36, max_drop=1.0)
