"""The stages, each a function of its own: what ``run`` puts in a row, and what the other verbs call alone."""

from __future__ import annotations

import dataclasses
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from torchstone.compress import build, chain
from torchstone.config import Settings, to_toml
from torchstone.core import console, files, machine, registry
from torchstone.core.artifact import load_artifact
from torchstone.core.contracts import ImageSet
from torchstone.core.errors import ArtifactError, ChainError, DataError, MissingPackageError, nearest
from torchstone.core.run import Run, run_of
from torchstone.core.values import PARTS, Artifact, Candidate, Catalog, Finding, Part, RuntimeOptions, Split
from torchstone.data import catalog as catalogs
from torchstone.data import findings as data_findings
from torchstone.data import split as splits
from torchstone.data.cache import open_images
from torchstone.evaluate import metrics, predict
from torchstone.runtimes import default_runtime

BASELINE = "torch"
STEP_NAMES = re.compile(r"(?:^|\+)([a-z0-9_]+)")


@dataclass(frozen=True, kw_only=True)
class Data:
    """A run with its images read and split."""

    run: Run
    catalog: Catalog
    split: Split

    def sets(self, artifact: Artifact, *parts: Part) -> dict[Part, ImageSet]:
        """The images of these parts (all of them if none is named) as this artifact sees them."""
        cache = self.run.cache
        return {
            part: open_images(self.catalog, self.split, part, artifact.preprocess, cache) for part in parts or PARTS
        }


def read(settings: Settings) -> Data:
    """Read and split the images, or take what an earlier call stored if the source is still the same."""
    run = settings.run
    source = {
        "listing": catalogs.source_digest(settings.data),
        "split": [settings.seed, settings.test_fraction],
    }
    stamp = run.data / "source.json"
    if not stamp.exists() or files.read_json(stamp) != source:
        stamp.unlink(missing_ok=True)
        catalog = catalogs.read(settings.data, run.data)
        splits.split(catalog, run.data, seed=settings.seed, test_fraction=settings.test_fraction)
        files.write_json(run.environment, machine.environment())
        files.write_text(run.config, to_toml(settings))
        files.write_json(stamp, source)
    return opened(run)


def opened(run: Run) -> Data:
    """A run whose images were read before."""
    return Data(run=run, catalog=run.catalog(), split=run.split())


def audit(source: str) -> list[Finding]:
    """What is wrong with these images; nothing is kept."""
    from torchstone.audit import audit as run_checks

    with tempfile.TemporaryDirectory(prefix="torchstone-") as scratch:
        directory = Path(scratch) / "data"
        catalog = catalogs.read(source, directory)
        return run_checks(catalog, data_findings.load(directory))


def train(settings: Settings) -> Artifact:
    """Read, split and train; what stands there already is kept."""
    with files.locked(settings.run.root):
        return trained(settings, read(settings))


def trained(settings: Settings, data: Data) -> Artifact:
    """The trained artifact of these settings."""
    missing = registry.missing_packages(("torch", "safetensors"))
    if missing:
        raise MissingPackageError("training", missing)
    from torchstone.train import recipe, stage

    base = recipe.finetune() if settings.weights else recipe.scratch()
    request = stage.TrainRequest(
        model=settings.model,
        weights=settings.weights,
        image_size=settings.image_size,
        small_input=settings.small_input,
        channels=settings.channels,
        recipe=base.model_copy(update=settings.recipe_options),
        seed=settings.seed,
    )
    return stage.train(request, data.catalog, data.split, data.run)


def baseline_of(artifact: Artifact, threads: int = 1) -> Candidate:
    """The artifact in the runtime of its own format: what the others are compared with."""
    return candidate_of(artifact, artifact.chain or BASELINE, None, threads)


def candidate_of(artifact: Artifact, name: str, runtime: str | None, threads: int) -> Candidate:
    """The artifact in ``runtime`` (by default that of its format), in the arithmetic it was made for."""
    return Candidate(
        name=name,
        artifact=artifact,
        runtime=runtime or default_runtime(artifact.format),
        options=RuntimeOptions(threads=threads, precision=artifact.precision),
        free=artifact.chain != "" and all(registry.steps.get(step).free for step in STEP_NAMES.findall(artifact.chain)),
    )


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


def plan_all(chains: Sequence[str]) -> list[chain.Plan]:
    """Parse and check every chain before anything is built."""
    return [chain.plan(text) for text in chains]


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
        except (ChainError, ArtifactError) as error:
            if not skip_impossible:
                raise
            console.say(f"left out: '{plan.name}': {error}")
    return list({one.id: one for one in built}.values())


def compress(model: str, chains: Sequence[str]) -> list[Candidate]:
    """Build chains from a stored torch model; each part of them once."""
    plans = plan_all(chains)
    base = baseline_of(find_artifact(model))
    data = opened(run_of(base.artifact))
    seed = base.artifact.made_by.config.get("seed", 0)
    with files.locked(data.run.root):
        return build_all(plans, base, data, seed=seed, skip_impossible=False)


def evaluate(model: str, source: str | None, part: Part) -> dict[str, Any]:
    """Metrics of one model on a part of its run's split, or on all images of another source."""
    place, runtime = split_runtime(model)
    artifact = find_artifact(place)
    candidate = candidate_of(artifact, artifact.chain or BASELINE, runtime, 1)
    if source is None:
        data = opened(run_of(artifact))
        path = data.run.predictions(candidate, part)
        found = predict.predict(candidate, data.split, part, data.sets(artifact, part)[part], path)
    else:
        found = _on_other_images(candidate, source)
    matrix = metrics.confusion(found.labels, metrics.predicted_classes(found.scores), len(artifact.classes))
    return {
        "model": candidate.name,
        "runtime": candidate.runtime,
        "images": len(found),
        "part": part if source is None else source,
        "size_mb": artifact.size_mb,
        **metrics.summary(found.labels, found.scores),
        "recall": dict(zip(artifact.classes, (float(value) for value in metrics.recall(matrix)), strict=True)),
        "confusion": matrix.tolist(),
    }


def _on_other_images(candidate: Candidate, source: str) -> predict.Predictions:
    """Predictions on a whole source; its classes must be among the model's."""
    artifact = candidate.artifact
    with tempfile.TemporaryDirectory(prefix="torchstone-") as scratch:
        catalog = catalogs.read(source, Path(scratch) / "data")
        unknown = [name for name in catalog.classes if name not in artifact.classes]
        if unknown:
            raise DataError(
                f"'{source}' has the class '{unknown[0]}', which the model does not know",
                hint=nearest(unknown[0], artifact.classes),
            )
        images = open_images(catalog, None, None, artifact.preprocess, Path(scratch) / "cache")
        numbers = np.array([artifact.classes.index(name) for name in catalog.classes])
        found = predict.answer(candidate, images, source)
        return dataclasses.replace(found, labels=numbers[images.labels])


def find_artifact(model: str) -> Artifact:
    """The artifact behind a path: an artifact's own directory, or a run, whose trained model it is."""
    place = Path(model)
    if (place / "artifact.json").exists():
        return load_artifact(place)
    trained_ones = [
        path.parent
        for path in place.glob("artifacts/*/artifact.json")
        if files.read_json(path)["made_by"]["step"] == "train"
    ]
    if len(trained_ones) == 1:
        return load_artifact(trained_ones[0])
    if trained_ones:
        names = ", ".join(sorted(path.name for path in trained_ones))
        raise ArtifactError(f"'{model}' holds several trained models: {names}", hint="name one of them")
    raise ArtifactError(
        f"'{model}' is neither an artifact nor a run with a trained model",
        hint="torchstone train DATA makes one, below runs/NAME/artifacts",
    )


def split_runtime(model: str) -> tuple[str, str | None]:
    """``DIRECTORY@RUNTIME`` → both."""
    place, _, runtime = model.rpartition("@")
    if not place or Path(model).exists():
        return model, None
    registry.runtimes.get(runtime)
    return place, runtime
