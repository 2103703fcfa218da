"""Profile one model: a run, an artifact, a bundle, or an architecture by its name."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from torchstone.core import files, machine, registry
from torchstone.core.errors import ConfigError, MissingPackageError
from torchstone.core.run import slug
from torchstone.core.values import Artifact, Candidate, Finding, Format, Precision
from torchstone.evaluate import advice
from torchstone.evaluate.profile import Profile
from torchstone.evaluate.profile import profile as measured
from torchstone.export import bundle
from torchstone.runtimes import default_runtime
from torchstone.stages import fresh
from torchstone.stages.find import candidate_of, find_artifact, split_runtime


@dataclass(frozen=True, kw_only=True)
class Options:
    """How the model is run. None: as the model was made for."""

    threads: int = 1
    batch: int = 1
    precision: Precision | None = None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What was found, and the page that shows it."""

    profile: Profile
    findings: list[Finding]
    page: Path


def profile(model: str, options: Options, *, out: Path | None = None, runs: Path = Path("runs")) -> Answer:
    """Profile ``model`` (``MODEL[@RUNTIME]``) and write a page to ``out`` (.html; by default
    ``runs/profiles/NAME.html``). A torch model that is asked for in another runtime is exported on the way."""
    from torchstone.report import profile_page

    machine.check_threads(options.threads)
    if missing := registry.missing_packages(("torch", "jinja2", "matplotlib")):
        raise MissingPackageError("a profile", missing)
    if out is not None and out.suffix != ".html":
        raise ConfigError(f"a profile is written as .html, not as '{out.name}'")
    if out is not None:
        files.make_directory(out.parent)
    with tempfile.TemporaryDirectory(prefix="torchstone-") as scratch:
        candidate = opened(model, options, Path(scratch))
        found = measured(candidate)
    findings = advice.advise(found)
    page = out or runs / "profiles" / f"{slug(f'{found.model}-{found.precision}-batch{found.batch}')}.html"
    files.write_bytes(page, profile_page.render(found, findings).encode())
    return Answer(profile=found, findings=findings, page=page)


def opened(model: str, options: Options, scratch: Path) -> Candidate:
    """The candidate behind ``MODEL[@RUNTIME]``. What has to be made for it goes to ``scratch``."""
    place, runtime = split_runtime(model)
    if (Path(place) / bundle.CANDIDATE).exists():
        candidate = bundle.load(Path(place))
        artifact, runtime = candidate.artifact, runtime or candidate.runtime
        precision = options.precision or candidate.options.precision
    else:
        artifact = _artifact(place, scratch)
        precision = options.precision or artifact.precision
    runtime = runtime or default_runtime(artifact.format)
    artifact = _in_format(artifact, registry.runtimes.ready(runtime).formats, scratch)
    made = candidate_of(artifact, artifact.chain or artifact.format, runtime, options.threads)
    update = {"precision": precision, "batch": options.batch}
    name = f"{Path(place).name}@{runtime}"
    return made.model_copy(update={"name": name, "options": made.options.model_copy(update=update)})


def _artifact(place: str, scratch: Path) -> Artifact:
    """From a path, or else from the name of an architecture."""
    marks = (Path(place) / "artifact.json", Path(place) / "artifacts", Path("runs") / place)
    if "/" in place or any(mark.exists() for mark in marks):
        return find_artifact(place)
    if missing := registry.missing_packages(("torch", "safetensors")):
        raise MissingPackageError(f"the architecture '{place}'", missing)
    from torchstone.models import families, zoo

    architecture = zoo.resolve(place)
    return fresh.fresh(architecture, scratch / "torch", classes=families.classes_of(architecture))


def _in_format(artifact: Artifact, formats: tuple[Format, ...], scratch: Path) -> Artifact:
    """The artifact, exported where the runtime does not open it as it is and an export leads there."""
    if artifact.format in formats or (artifact.format, formats[0]) not in fresh.ROUTES:
        return artifact  # what does not fit is refused by the runtime, in its own words
    return fresh.exported(artifact, formats[0], scratch / "exported")
