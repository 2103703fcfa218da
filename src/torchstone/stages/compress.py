"""Plan chains and build their candidates."""

from __future__ import annotations

from collections.abc import Sequence

from torchstone.compress import build, chain
from torchstone.compress.foresight import Foreseen, Foresight
from torchstone.core import console, files
from torchstone.core.contracts import ImageSet
from torchstone.core.run import run_of
from torchstone.core.values import Candidate, Format, Part, Preprocess
from torchstone.stages.find import baseline_of, find_artifact, seed_of
from torchstone.stages.read import Data, opened


def plan_all(chains: Sequence[str], start: Format = "torch") -> list[chain.Plan]:
    """Parse and check every chain before anything is built."""
    return [chain.plan(text, start=start) for text in chains]


def build_all(plans: Sequence[chain.Plan], baseline: Candidate, data: Data, *, seed: int) -> list[Candidate]:
    """The candidate of each of these plans; two of them may have come to the same model. Raises the ChainError of one
    that this model does not allow, before anything is built where that can be known."""

    seen_by: dict[str, dict[Part, ImageSet]] = {}

    def sets(preprocess: Preprocess) -> dict[Part, ImageSet]:
        key = preprocess.digest()
        if key not in seen_by:
            seen = baseline.artifact.model_copy(update={"preprocess": preprocess})
            seen_by[key] = data.sets(seen, "train", "val", "calib")
        return seen_by[key]

    _check(plans, baseline)
    threads = baseline.options.threads
    return [build.candidate(plan, baseline.artifact, sets, data.run, seed=seed, threads=threads) for plan in plans]


def distinct(made: Sequence[Candidate]) -> list[Candidate]:
    """Each model once, by the name that it had first. What another chain came to as well is said, and asked once."""
    first: dict[str, Candidate] = {}
    for one in made:
        known = first.setdefault(one.id, one)
        if known.name != one.name:
            console.say(f"note: '{one.name}' came to the very files of '{known.name}': one model, judged once")
    return list(first.values())


def _check(plans: Sequence[chain.Plan], baseline: Candidate) -> None:
    """Raise the ChainError of the first step that this network does not allow, as far as that is known beforehand; then
    say what the user may not have meant."""
    for plan in plans:
        for planned in plan.steps:
            if planned.step.replaces:
                break
            planned.step.fits(planned.config, baseline.artifact)
    for plan in plans:
        names = [planned.name for planned in plan.steps]
        for place, planned in enumerate(plan.steps, 1):
            if remark := planned.step.remark(planned.config, baseline.artifact, names[place:]):
                console.say(f"note: {plan.text}: {remark}")


def compress(model: str, chains: Sequence[str]) -> list[Candidate]:
    """Build chains from a stored torch model; each part of them once."""
    base = baseline_of(find_artifact(model))
    plans = plan_all(chains, base.artifact.format)
    data = opened(run_of(base.artifact))
    with files.locked(data.run.root):
        return build_all(plans, base, data, seed=seed_of(base.artifact))


def foresee(model: str, chains: Sequence[str]) -> list[Foreseen]:
    """What ``compress`` would do, step by step, and how long it would take. Nothing is built."""
    base = baseline_of(find_artifact(model))
    plans = plan_all(chains, base.artifact.format)
    _check(plans, base)
    foresight = Foresight(base.artifact, run_of(base.artifact), seed_of(base.artifact))
    return foresight.of(plans, base.artifact.format)
