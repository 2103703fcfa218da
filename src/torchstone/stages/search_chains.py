"""Search over chains: trials on one study, by any number of workers, each of which builds and screens one chain.

A trial's drop is that on val, its speed that against the baseline on the machine where it was built. The test images
are not touched: what the study recommends is for ``judge``, which asks them.
"""

from __future__ import annotations

import shlex
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchstone.compress import chain
from torchstone.config import WISHES, Settings
from torchstone.core import console, files, machine, registry
from torchstone.core.errors import ArtifactError, ChainError, ConfigError, MissingPackageError
from torchstone.core.run import run_of, slug
from torchstone.core.values import Budget, Candidate
from torchstone.judge import select
from torchstone.judge.select import Screened
from torchstone.search import chains, objectives, results
from torchstone.search.objectives import OF_CHAINS, Objective
from torchstone.stages import screening
from torchstone.stages.compress import build_all
from torchstone.stages.find import baseline_of, find_artifact, seed_of
from torchstone.stages.read import Data, opened
from torchstone.stages.search import PACKAGES

if TYPE_CHECKING:
    from torchstone.search.study import Measured, Study, Turn

DEFAULT = ("drop", "speed")
TAKEN = {
    "data", "name", "seed", "trials", "objective", "storage", "takeover", "space", "threads", *WISHES,
}  # fmt: skip
"""Settings that mean something to a search over chains."""


@dataclass(frozen=True, kw_only=True)
class FoundChains:
    """What a search over chains came to."""

    directory: Path
    summary: results.Summary
    objectives: tuple[Objective, ...]
    page: Path
    machines: tuple[str, ...]
    """Where the finished trials were timed."""
    shortlist: tuple[str, ...]
    """Chains that val and screening would let meet the test set, from the safest to the boldest; of those that were
    timed on this machine."""
    command: str | None
    """That lets them; None where there are none."""


def search_chains(settings: Settings) -> FoundChains:
    """Work on the study of these settings until all its trials are finished; ``settings.data`` names the run, or the
    torch artifact, whose chains are searched. The same settings join the study, from here or from another machine that
    has the run; what a killed worker left is taken over."""
    _check(settings)
    looked_for = objectives.named(settings.objective or DEFAULT, OF_CHAINS)
    missing = registry.missing_packages(PACKAGES if settings.storage is None else (*PACKAGES, "psycopg"))
    if missing:
        raise MissingPackageError("a search", missing)
    from torchstone.search import database
    from torchstone.search.study import Plan, Study

    if settings.storage:
        database.check_url(settings.storage)
    baseline = baseline_of(find_artifact(settings.data), settings.threads)
    if baseline.artifact.format != "torch":
        raise ConfigError(f"'{settings.data}' is {baseline.artifact.format}, and chains begin with torch",
                          hint="name the model that it was made from")  # fmt: skip
    data = opened(run_of(baseline.artifact))
    declared = chains.of_file(settings.space) if settings.space else chains.NOTHING
    varied = chains.of_model(baseline.artifact, declared)
    plan = Plan(
        space=varied,
        objectives=looked_for,
        known={},
        starts=tuple(chains.starts(varied)),
        title=chains.spelt,
        seed=settings.seed,
        about={
            "baseline": baseline.id,
            "images": data.split.fingerprint,
            "budget": settings.budget.model_dump(mode="json"),
        },
    )
    name = settings.name or f"{data.run.name}-chains-{files.digest(plan.row)[:6]}"
    directory = data.run.studies / slug(name)
    url = settings.storage or database.sqlite(directory / "study.db")
    files.make_directory(directory)
    opened_study = Study(url, name, plan, takeover=settings.takeover)
    with database.lost_connection_explained(), opened_study as study:
        console.say(f"search {name}: chains of {baseline.artifact.architecture}; {settings.trials} trials")
        measured = replace(data.run, measured=f"{data.run.studies.name}/{directory.name}/{data.run.measured}")
        bench = _Bench(replace(data, run=measured), baseline, settings.budget, study)
        study.work(settings.trials, bench.run)
        summary = results.gather(study, name, database.shown(url))
        with files.alone(directory / ".results.lock", "writing the results"):
            results.store(directory, summary, study)
            chosen = bench.shortlist(summary)
            command = _command(settings, chosen)
            files.write_json(directory / "shortlist.json", {"chains": chosen, "command": command})
            from torchstone.report import search_page

            page = search_page.write(directory)
    return FoundChains(
        directory=directory,
        summary=summary,
        objectives=looked_for,
        page=page,
        machines=tuple(sorted({place for trial in summary.trials if (place := trial.facts.get("machine"))})),
        shortlist=tuple(chosen),
        command=command,
    )


def _check(settings: Settings) -> None:
    """Refuse what a search over chains would not heed."""
    given = settings.model_dump(exclude_defaults=True)
    if odd := sorted(given.keys() - TAKEN - {"schema_version"}):
        raise ConfigError(
            f"'{odd[0].replace('_', '-')}' says nothing to a search over chains: the model is trained already",
            hint="leave it out; what a chain trains is said in the file of --space",
        )


def _command(settings: Settings, chosen: Sequence[str]) -> str | None:
    if not chosen:
        return None
    given = settings.model_dump(exclude_defaults=True)
    flags = [part for name in ("threads", *WISHES) if name in given
             for part in (f"--{name.replace('_', '-')}", str(given[name]))]  # fmt: skip
    return shlex.join(["torchstone", "judge", settings.data, *chosen, *flags])


class _Bench:
    """Where this worker builds and screens its trials."""

    def __init__(self, data: Data, baseline: Candidate, budget: Budget, study: Study) -> None:
        self._data, self._baseline, self._budget, self._study = data, baseline, budget, study
        self._here = socket.gethostname()
        self._shapes: dict[str, Screened] = {}

    def run(self, turn: Turn) -> Measured:
        """Build the chain of one trial and screen it; first its sketch, where it trains. Raises Stopped with the reason
        where it cannot be built, or cannot win."""
        from torchstone.search.study import Measured, Stopped
        from torchstone.search.tickets import Lost

        text = chains.spelt(turn.values)
        if known := self._measured(text):
            return known
        try:
            shape = self._shape(text)
            if shape is not None:
                if why := self._cannot_win(shape):
                    raise Stopped(why)
                turn.reported(1, 0.0)
            made = self._build(text)
            turn.reported(2, 0.0)
            timed = self._screen(made)
        except ChainError as error:  # of this model; so that the sampler learns to stay away
            raise Stopped(f"{error.message}; {error.hint}" if error.hint else error.message) from None
        if turn.lost.is_set():
            raise Lost
        facts: dict[str, Any] = self._facts(timed) | {"sketched": shape.speed.ratio if shape else None}
        return Measured(values=tuple(facts[one.name] for one in self._study.plan.objectives), facts=facts)

    def _build(self, text: str) -> Candidate:
        if not text:
            raise ChainError("this is the baseline itself")
        seed = seed_of(self._baseline.artifact)  # that of ``compress`` and ``judge``, which find what was built here
        return build_all([chain.plan(text)], self._baseline, self._data, seed=seed)[0]

    def _measured(self, text: str) -> Measured | None:
        """What an earlier trial found of the same chain on this machine."""
        from torchstone.search.study import Measured

        for trial, facts in self._done():
            if self._study.title_of(trial) == text:
                return Measured(values=tuple(trial.values), facts={**facts, "measured_by": trial.user_attrs["ticket"]})
        return None

    def _done(self) -> list[tuple[Any, dict[str, Any]]]:
        """The complete trials that were timed on this machine, with what was measured."""
        from torchstone.search.study import MEASURED

        found = [(trial, trial.user_attrs.get(MEASURED, {})) for trial in self._study.trials()
                 if trial.state.name == "COMPLETE"]  # fmt: skip
        return [(trial, facts) for trial, facts in found if facts.get("machine") == self._here]

    def _shape(self, text: str) -> Screened | None:
        """The same shape without the training, screened; None where the chain trains nothing."""
        sketch = chain.sketch(chain.plan(text)) if text else None
        if sketch is None:
            return None
        if sketch not in self._shapes:
            self._shapes[sketch] = self._screen(self._build(sketch))
        return self._shapes[sketch]

    def _cannot_win(self, shape: Screened) -> str | None:
        """Why a chain of this shape is not worth its training. A trial that meets the budget on val counts as accurate:
        that is what the margin says. Where the clock was not to be trusted, nothing is ruled out by it."""
        if why := select.out_of_reach(shape, self._budget):
            return why
        if shape.noise is not None:
            return None
        size = shape.candidate.artifact.size_mb
        asked = {one.name for one in self._study.plan.objectives}
        if not asked & {"speed", "size"}:
            return None
        for trial, facts in self._done():
            at_least = (facts["speed_at_least"] or 0.0) if facts["noise"] is None else 0.0
            faster = "speed" not in asked or at_least > shape.at_most
            smaller = "size" not in asked or facts["size"] <= size
            if facts["meets_the_budget"] and faster and smaller:
                return (
                    f"its shape is {shape.speed.ratio:.1f}× as fast as the baseline and has {size:.2f} MB; "
                    f"'{self._study.title_of(trial)}' is {facts['speed']:.1f}× as fast, has {facts['size']:.2f} MB "
                    "and meets the budget"
                )
        return None

    def _screen(self, made: Candidate) -> Screened:
        """Screened in a session of its own even where there are timings: they may be of another machine."""
        found = screening.screen(self._data, self._baseline, [made], self._budget)[made.id]
        if isinstance(found, str):
            raise ArtifactError(f"'{made.name}' cannot be compared: {found}")
        return found

    def _facts(self, screened: Screened) -> dict[str, Any]:
        made, ratio = screened.candidate.artifact, screened.speed
        return {
            "drop": screened.accuracy.difference,
            "drop_at_most": screened.accuracy.upper,
            "speed": ratio.ratio,
            "speed_at_least": ratio.lower,
            "noise": screened.noise,
            "latency_ms": screened.latency.median_ms,
            "size": made.size_mb,
            "meets_the_budget": select.doubt(screened, self._budget) is None,
            "artifact": made.directory.name,
            "machine": self._here,
            "cpu": machine.cpu_name(),
        }

    def shortlist(self, summary: results.Summary) -> list[str]:
        """Chains for ``judge``, by val and the screening of this machine alone."""
        found: dict[str, tuple[Candidate, str]] = {}
        noisy: dict[str, str] = {}
        for trial in summary.trials:
            artifact = trial.facts.get("artifact")
            if trial.values and trial.name and trial.facts["machine"] == self._here and artifact:
                if not (self._data.run.artifacts / artifact / "artifact.json").exists():
                    continue  # built below another folder of runs
                made = self._build(trial.name)
                if self._data.run.timings(made).exists() and self._data.run.predictions(made, "val").exists():
                    found[made.id] = (made, trial.name)
                    if noise := trial.facts["noise"]:
                        noisy[made.id] = noise
        if not found:
            return []
        made = [one for one, _ in found.values()]
        chosen = select.shortlist(self._data.run, [self._baseline, *made], self._budget, noisy)
        return [found[key][1] for key in chosen.order]
