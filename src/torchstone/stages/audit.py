"""Audit a data set: read it, check it, show it. All of it is kept, so that the next call is quick."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchstone.audit import audit as run_checks
from torchstone.audit import clean as cleaning
from torchstone.core import console, files, registry
from torchstone.core.errors import ArtifactError, ConfigError, MissingPackageError, UserError
from torchstone.core.run import slug
from torchstone.core.values import Catalog, Finding
from torchstone.data import catalog as catalogs
from torchstone.data import findings as reported
from torchstone.data.sources import source_digest

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

    ``quick`` leaves out the checks that look at what is in the pictures with a network; ``fix`` writes a cleaned
    catalog, which is a source like any other. The user's files are never changed. When neither the images nor
    torchstone have changed since the last call, nothing is read or checked again.
    """
    missing = registry.missing_packages(("polars", "jinja2"))
    if missing:
        raise MissingPackageError("the audit", missing)
    place = out or runs / "audits" / _name(source)
    _check_place(place, source)
    stamp = {"source": source_digest(source), "version": version("torchstone")}
    with files.locked(place):
        known = _known(place)
        if any(known.get(key) != value for key, value in stamp.items()):
            _read(source, place)
            files.write_json(place / STAMP, stamp)
            known = stamp
        catalog = _catalog(place)
        if "checked" not in known or (known["checked"] == "quick" and not quick):
            _check(catalog, place, runs / "cache" if out is None else place / "cache", quick)
            files.write_json(place / STAMP, {**stamp, "checked": "quick" if quick else "all"})
        cleaned = cleaning.clean(catalog, place) if fix else None
        return Audit(directory=place, catalog=catalog, findings=tuple(reported.load(place)), cleaned=cleaned)


def _read(source: str, place: Path) -> None:
    """Read the images; a source that cannot be learned from leaves nothing behind."""
    files.write_json(place / STAMP, {})
    files.remove(place / "data")
    try:
        catalogs.read(source, place / "data")
    except UserError:
        files.remove(place / "data")
        if not (place / PAGE).exists():
            (place / STAMP).unlink()
        raise


def _check(catalog: Catalog, place: Path, cache: Path, quick: bool) -> None:
    """Run all checks; write the findings and the page."""
    from torchstone.report import audit_page

    features, missing = (None, []) if quick else _features(catalog, cache)
    noticed = [*run_checks(catalog, reported.load(place / "data"), features=features), *missing]
    cleaning.store(noticed, place)
    (place / cleaning.CLEANED).unlink(missing_ok=True)  # of what was found before
    audit_page.write(catalog, reported.load(place), place / PAGE)


def _features(catalog: Catalog, cache: Path) -> tuple[Features | None, list[Finding]]:
    """What a frozen network makes of the images, or a finding that says why it was not asked."""
    from torchstone.audit import features

    try:
        return features.extract(catalog, cache), []
    except MissingPackageError as error:
        console.say(f"note: {error}")
        left_out = Finding(
            check="features",
            severity="info",
            message=f"what is in the pictures was not compared: {error.message}",
            hint=error.hint,
        )
        return None, [left_out]


def _known(place: Path) -> dict[str, Any]:
    """What the stamp of an earlier audit says; nothing where there was none, or where its files are gone."""
    try:
        known = files.read_json(place / STAMP)
        _catalog(place)
    except ArtifactError:
        return {}
    if not isinstance(known, dict):
        return {}
    whole = all((place / name).exists() for name in (PAGE, cleaning.MARKS, reported.FILE))
    return known if whole else {key: value for key, value in known.items() if key != "checked"}


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
