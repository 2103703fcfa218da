"""Read, audit and split the images."""

from __future__ import annotations

import shlex
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchstone.audit import audit as run_checks
from torchstone.audit import not_compared
from torchstone.audit.clean import store
from torchstone.config import Settings, to_toml
from torchstone.core import console, environment, files
from torchstone.core.contracts import ImageSet
from torchstone.core.errors import ArtifactError
from torchstone.core.run import Run
from torchstone.core.values import PARTS, Artifact, Catalog, Part, Split
from torchstone.data import catalog as catalogs
from torchstone.data import findings as reported
from torchstone.data import split as splits
from torchstone.data.cache import open_images, set_limit
from torchstone.data.findings import count_of


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
    """Read and split the images, or take what an earlier call stored if the source is still the same. Where the source
    has changed, images that it kept stay in the part where they were."""
    run = settings.run
    set_limit(run.cache, settings.cache_gb)
    options = {"seed": settings.seed, "test_fraction": settings.test_fraction, "by": settings.split_by}
    previous = None if settings.previous_split is None else split_table(settings.previous_split)
    went_from = [files.sha256(previous)] if previous else []
    source = {**catalogs.made_of(settings.data), "split": [*options.values(), *went_from]}
    stamp = run.data / "source.json"
    if not stamp.exists() or files.read_json(stamp) != source:
        catalog, split = prepare(settings.data, run.data, previous=previous, **options)
        hint = shlex.join(["torchstone", "audit", settings.data])
        noticed = [*run_checks(catalog, reported.load(run.data), split), not_compared(hint)]
        store(noticed, run.data)
        for finding in noticed:
            if finding.severity != "info":
                console.say(f"{finding.severity}: {finding.message}")
            elif finding.check == catalogs.PARTS:
                console.say(f"note: {finding.message}\nhint: {finding.hint}")
        if notes := [one for one in noticed if one.severity == "info" and one.check != catalogs.PARTS]:
            named = "; ".join(_in_short(finding.message) for finding in notes)
            console.say(f"{count_of(len(notes), 'note')} ({named}): {hint} shows {'it' if len(notes) == 1 else 'them'}")
        console.say("images: " + ", ".join(f"{split.sizes[part]:,} {part}" for part in PARTS if part in split.sizes))
        environment.here().save(run.environment)
        files.write_json(stamp, source)
    files.write_text(run.config, to_toml(settings))
    return opened(run)


NOTE = 70
"""Characters of a note in the one line that names all of them."""


def _in_short(message: str) -> str:
    """The beginning of a message, whole words of it."""
    return textwrap.shorten(message.partition(";")[0], NOTE, placeholder=" …")


def prepare(source: str, directory: Path, *, previous: Path | None = None, **options: Any) -> tuple[Catalog, Split]:
    """Read and split ``source`` into ``directory``, in place of what an earlier call wrote there; its split is gone on
    from, unless another ``previous`` is named (``data.split.goes_on_from``). An error leaves the directory as it was.
    ``options`` are those of ``data.split.split``."""
    chosen = {name: value for name, value in options.items() if name != "seed"}
    splits.check_options(previous=previous, **chosen)
    previous = splits.goes_on_from(directory, named=previous, **options)
    with files.whole_directory(directory) as place:
        catalog = catalogs.read(source, place)
        split = splits.split(catalog, place, previous=previous, **options)
        catalog = catalog.model_copy(update={"table": directory / catalog.table.name})
        split = split.model_copy(update={"table": directory / split.table.name})
        catalog.save(place / "catalog.json")
        split.save(place / "split.json")
    return catalog, split


def split_table(place: Path) -> Path:
    """The ``split.parquet`` that ``place`` is or holds, as a run or what ``data split`` wrote does."""
    found = next(
        (path for path in (place, place / "split.parquet", Run(place).data / "split.parquet") if path.is_file()), None
    )
    if found is None:
        raise ArtifactError(f"there is no split at '{place}'", hint="name a split.parquet, or the directory of one")
    return found


def opened(run: Run) -> Data:
    """A run whose images were read before."""
    return Data(run=run, catalog=run.catalog(), split=run.split())
