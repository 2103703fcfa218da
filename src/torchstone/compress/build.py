"""Build the artifacts of a plan, each once: chains share what they have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torchstone.compress.chain import Plan, PlannedStep
from torchstone.core import artifact as artifacts
from torchstone.core import console, files, machine, seeding
from torchstone.core.contracts import ImageSet, StepContext
from torchstone.core.errors import ArtifactError, ChainError
from torchstone.core.run import Run, slug
from torchstone.core.values import Artifact, Candidate, MadeBy, Part, Preprocess, RuntimeOptions
from torchstone.runtimes import default_runtime, golden

Sets = Callable[[Preprocess], Mapping[Part, ImageSet]]
"""The parts train, val and calib, as a model with this preprocessing sees them."""


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What all steps of a chain share."""

    origin: Artifact
    sets: Sets
    run: Run
    seed: int

    def context(self, planned: PlannedStep, preprocess: Preprocess, seed: int) -> StepContext:
        """What the step may see, by images of this preprocessing."""
        sets = self.sets(preprocess)
        return StepContext(
            train=sets["train"],
            calib=sets["calib"],
            val=sets["val"] if planned.step.wants_val(planned.config) else None,
            seed=seed,
            origin=self.origin,
            cache=self.run.cache / "steps",
            at=lambda other: self.context(planned, other, seed),
        )


def candidate(plan: Plan, baseline: Artifact, sets: Sets, run: Run, *, seed: int, threads: int) -> Candidate:
    """Build what is missing of ``plan`` below ``run.artifacts`` and return the candidate it ends in."""
    ground = Ground(origin=baseline, sets=sets, run=run, seed=seed)
    made, label = baseline, baseline.chain
    for planned in plan.steps:
        spelt = f"{label}+{planned}".strip("+")
        made = _apply(planned, made, spelt, ground)
        label = label if planned.inserted else spelt
    return Candidate(
        name=plan.name,
        artifact=made,
        runtime=plan.runtime,
        options=RuntimeOptions(threads=threads, precision=made.precision),
        free=plan.free,
    )


def key_of(planned: PlannedStep, parent: Artifact, origin: Artifact, seed: int) -> str:
    """The key of what a step makes of ``parent`` in a chain that began with ``origin``."""
    step = planned.step
    packages = {*step.requires, *step.requires_for(planned.target)}
    return artifacts.key_of(
        {
            "step": [planned.name, step.version, planned.target if step.targets else None],
            "config": planned.config.model_dump(mode="json"),
            "parent": parent.id,
            "split": parent.split_fingerprint,
            "seed": seed,
            **step.ingredients(planned.config, origin),
            "cpu": machine.summary()["cpu_features"],
        },
        tuple(sorted(packages)),
    )


def place_of(planned: PlannedStep, key: str, run: Run) -> Path:
    """The directory of that artifact."""
    return run.artifacts / f"{slug(str(planned))}-{key[:10]}"


def _apply(planned: PlannedStep, parent: Artifact, label: str, ground: Ground) -> Artifact:
    """One step's artifact: the one that stands there, or made now. A ChainError when this model does not allow it."""
    step = planned.step
    config = planned.config.model_dump(mode="json")
    key = key_of(planned, parent, ground.origin, ground.seed)

    def make(directory: Path) -> Artifact:
        console.say(f"building {label}")
        context = ground.context(planned, parent.preprocess, seeding.seed_of(ground.seed, key))
        try:
            made = step.apply(parent, context, planned.config, planned.target, directory)
        except ArtifactError as error:  # of what was just made; a damaged parent was noticed when it was loaded
            raise ChainError(f"'{label}' cannot be built: {error.message}", hint=error.hint) from None
        made = made.model_copy(
            update={
                "key": key,
                "parent": parent.id,
                "chain": label,
                "made_by": MadeBy(step=planned.name, version=step.version, config=config),
            }
        )
        own = Candidate(
            name=planned.name,
            artifact=made,
            runtime=default_runtime(made.format),
            options=RuntimeOptions(precision=made.precision),
        )
        golden.seal(own, context.calib)
        return made

    place = place_of(planned, key, ground.run)
    # Several workers of a search build chains with common beginnings.
    with files.alone(ground.run.busy / f"{place.name}.lock", f"building {label}"):
        return artifacts.build(place, make, resume=step.resumes)
