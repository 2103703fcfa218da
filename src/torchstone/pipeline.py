"""From a folder of images to a bundle that passed: the stages, in their order."""

from __future__ import annotations

from pathlib import Path

from torchstone.compress.foresight import Foreseen, Foresight
from torchstone.config import Settings
from torchstone.core import console, files
from torchstone.core.verdict import Verdict
from torchstone.stages import compress, find, judge, ladder, publish, read, train


def run(settings: Settings) -> Verdict:
    """Read, split, train, build the candidates, judge them, write the bundle and the report.

    The same settings find the same run: what is finished is taken as it stands, and a finished run is not measured
    again. Raises UserErrors for what cannot be done, where possible before anything is trained.
    """
    budget = settings.budget
    plans = compress.plan_all(settings.chain)
    train.check(settings)
    with files.locked(settings.run.root):
        console.say(f"run {settings.run.root}")
        data = read.read(settings)
        judge.announce(data, budget)
        baseline = find.baseline_of(train.trained(settings, data), settings.threads)
        if plans:
            built = compress.distinct(compress.build_all(plans, baseline, data, seed=settings.seed))
        else:
            built = ladder.climb(settings, data, baseline)
        candidates = [baseline, *built]
        verdict = judge.finished(data, candidates, budget)
        if verdict is None:
            shortlist = judge.shortlist(data, candidates, budget)
            how = judge.Measuring(quartets=settings.quartets, portraits=not settings.skip_portraits)
            verdict = judge.decide(data, candidates, shortlist, budget, how)
            publish.publish(data, candidates, verdict)
        return verdict


def foresee(settings: Settings) -> tuple[list[Foreseen], list[str]]:
    """The chains that ``run`` would try, what their steps need and how long they would take, and of each chain on what
    it depends whether it is tried (empty: it was asked for). Nothing is trained or built, and of the images no more is
    read than it takes to say which model they would choose. A model that is not trained yet has no times."""
    baseline, run = train.standing(settings), settings.run
    if baseline is None:
        settings = train.planned(settings)
    if settings.chain:
        plans, when = compress.plan_all(settings.chain), []
    else:
        network = (baseline.architecture, baseline.preprocess.crop) if baseline else train.network_of(settings)
        rungs = ladder.rungs(settings, *network)
        plans, when = compress.plan_all([rung.chain for rung in rungs]), [ladder.WHEN[rung.kind] for rung in rungs]
    return Foresight(baseline, run, settings.seed).of(plans), when


def demo(runs: Path = Path("runs")) -> tuple[Settings, Verdict]:
    """The main job on scikit-learn's digits: LeNet-5, 648 test images, at most one point lost."""
    settings = Settings(data="digits", name="demo", runs=runs, model="lenet5", test_fraction=0.36, max_drop=1.0)
    return settings, run(settings)
