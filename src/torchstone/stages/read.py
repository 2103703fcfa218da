"""Read, audit and split the images."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from torchstone.audit import audit as run_checks
from torchstone.config import Settings, to_toml
from torchstone.core import console, files, machine
from torchstone.core.contracts import ImageSet
from torchstone.core.errors import DataError
from torchstone.core.run import Run
from torchstone.core.values import PARTS, Artifact, Catalog, Finding, Part, Split
from torchstone.data import catalog as catalogs
from torchstone.data import findings as reported
from torchstone.data import split as splits
from torchstone.data.cache import open_images


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
        files.remove(run.data)
        try:
            catalog = catalogs.read(settings.data, run.data)
            split = splits.split(catalog, run.data, seed=settings.seed, test_fraction=settings.test_fraction)
        except DataError:
            files.remove(run.data)
            raise
        noticed = run_checks(catalog, reported.load(run.data), split)
        reported.store(run.data, noticed)
        for finding in noticed:
            if finding.severity != "info":
                console.say(f"{finding.severity}: {finding.message}")
        files.write_json(run.environment, machine.environment())
        files.write_json(stamp, source)
    files.write_text(run.config, to_toml(settings))
    return opened(run)


def opened(run: Run) -> Data:
    """A run whose images were read before."""
    return Data(run=run, catalog=run.catalog(), split=run.split())


def audit(source: str) -> list[Finding]:
    """What is wrong with these images; nothing is kept."""
    with tempfile.TemporaryDirectory(prefix="torchstone-") as scratch:
        directory = Path(scratch) / "data"
        catalog = catalogs.read(source, directory)
        return run_checks(catalog, reported.load(directory))
