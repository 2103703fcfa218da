"""Which networks there are, what they cost, and how long they take here."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from torchstone.core import files, machine, registry
from torchstone.core.console import say, track
from torchstone.core.errors import ConfigError, MissingPackageError
from torchstone.core.values import Artifact, RuntimeOptions
from torchstone.evaluate.relative import Options, Row, relative
from torchstone.models import families
from torchstone.models.families import Member
from torchstone.runtimes import open_artifact
from torchstone.stages import fresh

REFERENCE = "resnet18"
"""Takes turns with every other network."""


def models(pattern: str | None = None, *, measure: Options | None = None, out: Path | None = None) -> list[Row]:
    """The networks whose name or family matches ``pattern``; all families without one. With ``measure`` each is
    exported and timed on one image; with ``out`` (.html) a page compares them."""
    from torchstone.report import families_page

    if out is not None and out.suffix != ".html":
        raise ConfigError(f"the page is written as .html, not as '{out.name}'")
    if out is not None and (missing := registry.missing_packages(("jinja2", "matplotlib"))):
        raise MissingPackageError("the page", missing)
    if out is not None:
        files.make_directory(out.parent)
    found = families.members(pattern)
    rows = measured(found, measure) if measure else [Row(member=member) for member in found]
    if out is not None:
        files.write_bytes(out, families_page.render(rows, measure).encode())
    return rows


def measured(found: Sequence[Member], options: Options) -> list[Row]:
    """Each network with random weights in the runtime, in turns with the reference."""
    runtime = registry.runtimes.ready(options.runtime, "torch", "onnx", "timm", "torchvision")
    if options.precision not in runtime.precisions:
        raise ConfigError(
            f"runtime '{options.runtime}' has no {options.precision} arithmetic",
            hint=f"it has {', '.join(runtime.precisions)}",
        )
    machine.check_threads(options.threads)
    from torchstone.models import zoo

    rows = []
    with tempfile.TemporaryDirectory(prefix="torchstone-") as scratch:
        reference = _call(zoo.resolve(REFERENCE), options, Path(scratch) / "reference")
        for number, member in enumerate(track(found, "timing")):
            say(f"timing {member.name}")
            with tempfile.TemporaryDirectory(dir=scratch, prefix=f"{number}-") as own:
                call = _call(member.architecture, options, Path(own) / "model")
                rows.append(Row(member=member, speed=relative(call, reference)))
    return rows


def _call(architecture: str, options: Options, directory: Path) -> Callable[[], Any]:
    """A call of the network on one image of noise. Its files may go once it is open."""
    artifact: Artifact = fresh.fresh(architecture, directory / "torch", classes=families.classes_of(architecture))
    formats = registry.runtimes.get(options.runtime).formats
    if artifact.format not in formats:
        # ONNX is what both graph runtimes open; OpenVINO's own format holds the same graph.
        artifact = fresh.exported(artifact, "onnx", directory)
    made = RuntimeOptions(threads=options.threads, precision=options.precision)
    runner = open_artifact(artifact, made, runtime=options.runtime)
    side = artifact.preprocess.crop
    pixels = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
    return lambda: runner(pixels)
