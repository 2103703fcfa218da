"""Audit a data set: read it, check it, show it. All of it is kept, so that the next call is quick."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torchstone.audit import audit as run_checks
from torchstone.audit import clean as cleaning
from torchstone.audit import not_compared
from torchstone.core import console, files, registry
from torchstone.core.errors import ArtifactError, ConfigError, MissingPackageError, UserError
from torchstone.core.run import slug
from torchstone.core.values import Catalog, Finding
from torchstone.data import catalog as catalogs
from torchstone.data import findings as reported

if TYPE_CHECKING:
    from torchstone.audit.features import Features

STAMP = "torchstone-audit.json"
"""Says that a directory is an audit's, and of what; there from the start. What an audit replaces lies beside it."""

PAGE = "audit.html"


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What was found, and where it lies: ``audit.html``, ``findings.json``, ``marks.parquet`` (each finding's items
    in full), with ``fix`` ``cleaned.parquet``, and below ``data/`` the catalog."""

    directory: Path
    catalog: Catalog
    findings: tuple[Finding, ...]
    """The worst first; each names its first items."""
    cleaned: cleaning.Cleaned | None

    @property
    def page(self) -> Path:
        return self.directory / PAGE


def audit(
    source: str, *, out: Path | None = None, fix: bool = False, quick: bool = False, runs: Path = Path("runs")
) -> Audit:
    """Find what is wrong with the images of ``source`` and write it to ``out`` (by default ``runs/audits/NAME``).

    ``quick`` asks no network what is in the pictures: the checks that need it look only where an earlier call has asked
    about the same images. ``fix`` writes a cleaned catalog, which is a source like any other. The user's files are
    never changed. While the images stay the same they are read once and shown to the network once; the checks, which
    take little time, are made at every call.
    """
    missing = registry.missing_packages(("polars", "jinja2"))
    if missing:
        raise MissingPackageError("the audit", missing)
    place = out or runs / "audits" / _name(source)
    _check_place(place, source)
    from torchstone.report import audit_page  # jinja2 is there

    stamp = catalogs.made_of(source)
    with files.locked(place):
        if not _is_read(place, stamp):
            _read(source, place)
            files.write_json(place / STAMP, stamp)
        catalog = _catalog(place)
        features, missing = _features(catalog, runs / "cache" if out is None else place / "cache", quick)
        noticed = run_checks(catalog, [*reported.load(place / "data"), *missing], features=features)
        cleaning.store(noticed, place)
        cleaned = cleaning.clean(catalog, place) if fix else None
        command = shlex.join(["torchstone", "run", str(cleaned.path)]) if cleaned else _fixing(source, out)
        audit_page.write(catalog, reported.load(place), place / PAGE, command=command, cleaned=cleaned is not None)
        return Audit(directory=place, catalog=catalog, findings=tuple(reported.load(place)), cleaned=cleaned)


def _read(source: str, place: Path) -> None:
    """Read the images; a source that cannot be learned from leaves nothing behind."""
    cleaning.check_unedited(place / cleaning.CLEANED)
    files.write_json(place / STAMP, {})
    files.remove(place / "data")
    try:
        catalogs.read(source, place / "data", empty_classes=True)
    except UserError:
        files.remove(place / "data")
        if not (place / PAGE).exists():
            (place / STAMP).unlink()
        raise
    (place / cleaning.CLEANED).unlink(missing_ok=True)  # of other images


def _features(catalog: Catalog, cache: Path, quick: bool) -> tuple[Features | None, list[Finding]]:
    """What a frozen network makes of the images, or a finding that says why it was not asked."""
    from torchstone.audit import features

    if quick:
        known = features.stored(catalog, cache)
        return known, [] if known else [not_compared("audit it without --quick")]
    try:
        return features.extract(catalog, cache), []
    except MissingPackageError as error:
        console.say(f"note: {error}")
        return None, [not_compared(error.hint, why=error.message)]


def _is_read(place: Path, stamp: dict[str, object]) -> bool:
    """Whether the catalog of an earlier audit is there, and what reading the images again would give."""
    try:
        return files.read_json(place / STAMP) == stamp and _catalog(place).table.exists()
    except ArtifactError:
        return False


def _fixing(source: str, out: Path | None) -> str:
    """The command that writes the cleaned catalog of this audit, as a shell takes it."""
    return shlex.join(["torchstone", "audit", source, *(() if out is None else ("--out", str(out))), "--fix"])


def _catalog(place: Path) -> Catalog:
    data = place / "data"
    return Catalog.load(data / "catalog.json").model_copy(update={"table": data / "catalog.parquet"})


def _check_place(place: Path, source: str) -> None:
    """Refuse a directory of other things, which an audit must not mix with, and one among the images."""
    if place.is_dir() and not (place / STAMP).exists() and any(path.name != ".lock" for path in place.iterdir()):
        raise ConfigError(f"'{place}' holds other things than an audit", hint="name a new directory with --out")
    images = Path(source).expanduser()
    if images.is_dir() and place.resolve().is_relative_to(images.resolve()):
        raise ConfigError(
            f"the audit would lie among the images, in '{place}'", hint="name a directory elsewhere with --out"
        )


def _name(source: str) -> str:
    """Readable, and another one for another folder of the same name."""
    path = Path(source).expanduser()
    if not path.exists():
        return slug(source)
    path = path.resolve()
    return f"{slug(path.name or 'data')}-{files.digest(str(path))[:6]}"
