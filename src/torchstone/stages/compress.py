"""Plan chains and build their candidates."""

from __future__ import annotations

from collections.abc import Sequence

from torchstone.compress import build, chain
from torchstone.config import Settings
from torchstone.core import console, files
from torchstone.core.errors import ChainError, MissingPackageError
from torchstone.core.run import run_of
from torchstone.core.values import Candidate, Format
from torchstone.stages.find import baseline_of, find_artifact, seed_of
from torchstone.stages.read import Data, opened


def ladder(settings: Settings) -> list[chain.Plan]:
    """The plans of the chains to judge. A chain that was named must be possible; one of the default ladder is left
    out, and it is said, where its packages are not installed."""
    if settings.chain:
        return plan_all(settings.chain)
    plans = [chain.plan(text, check_packages=False) for text in settings.chains]
    for plan in plans:
        if missing := plan.missing_packages():
            error = MissingPackageError(f"'{plan.name}'", missing)
            console.say(f"left out: {error.message}\n  {error.hint}")
    return [plan for plan in plans if not plan.missing_packages()]


def plan_all(chains: Sequence[str], start: Format = "torch") -> list[chain.Plan]:
    """Parse and check every chain before anything is built."""
    return [chain.plan(text, start=start) for text in chains]


def build_all(
    plans: Sequence[chain.Plan], baseline: Candidate, data: Data, *, seed: int, skip_impossible: bool
) -> list[Candidate]:
    """The candidates of these plans. With ``skip_impossible``, one that this model does not allow is left out, and it
    is said; otherwise its error is raised."""
    sets = data.sets(baseline.artifact, "train", "val", "calib")
    built: list[Candidate] = []
    for plan in plans:
        try:
            threads = baseline.options.threads
            built.append(build.candidate(plan, baseline.artifact, sets, data.run, seed=seed, threads=threads))
        except ChainError as error:
            if not skip_impossible:
                raise
            console.say(f"left out: '{plan.name}': {error}")
    return list({one.id: one for one in built}.values())


def compress(model: str, chains: Sequence[str]) -> list[Candidate]:
    """Build chains from a stored torch model; each part of them once."""
    base = baseline_of(find_artifact(model))
    plans = plan_all(chains, base.artifact.format)
    data = opened(run_of(base.artifact))
    with files.locked(data.run.root):
        return build_all(plans, base, data, seed=seed_of(base.artifact), skip_impossible=False)
