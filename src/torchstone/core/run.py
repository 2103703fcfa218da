"""Where things lie in a run directory (the picture is in docs/architecture.md)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from torchstone.core import files
from torchstone.core.artifact import load_artifact
from torchstone.core.errors import ArtifactError
from torchstone.core.values import Artifact, Candidate, Catalog, Part, Split

MANIFEST = "manifest.json"
"""In a bundle: the sha256 of each of its files."""


@dataclass(frozen=True)
class Run:
    """A run directory. Making one touches nothing on the disk."""

    root: Path
    measured: str = "evidence"
    """Folder of answers and times, below ``root``. A search over chains has its own: what it times must not replace
    what a verdict stands on."""

    @property
    def name(self) -> str:
        return self.root.name

    @property
    def config(self) -> Path:
        return self.root / "run.toml"

    @property
    def environment(self) -> Path:
        return self.root / "environment.json"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def findings(self) -> Path:
        return self.data / "findings.json"

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    @property
    def candidates(self) -> Path:
        return self.root / "candidates.json"

    @property
    def verdict(self) -> Path:
        return self.root / "verdict.json"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    def retract(self) -> None:
        """Take the verdict and its report away, before anything that they stand on is replaced."""
        self.report.unlink(missing_ok=True)
        self.verdict.unlink(missing_ok=True)

    @property
    def bundle(self) -> Path:
        return self.root / "bundle"

    @property
    def cache(self) -> Path:
        """Decoded images, shared by all runs below the same folder."""
        return self.root.parent / "cache"

    @property
    def ledger(self) -> Path:
        """Looks at each test set, shared by all runs below the same folder."""
        return self.root.parent / "ledger"

    @property
    def tracking(self) -> Path:
        """What trackers keep on this machine, shared by all runs below the same folder: there they are compared."""
        return self.root.parent / "tracking"

    @property
    def ladder(self) -> Path:
        """Which chains were tried, and why others were not."""
        return self.root / "ladder.json"

    @property
    def busy(self) -> Path:
        """Locks of what one of several workers makes while the others wait for it."""
        return self.root / ".busy"

    @property
    def studies(self) -> Path:
        """Searches over chains of the model that was trained here, a folder each."""
        return self.root / "studies"

    def evidence(self, candidate: Candidate) -> Path:
        return self.root / self.measured / candidate.slug

    def predictions(self, candidate: Candidate, part: Part) -> Path:
        return self.evidence(candidate) / f"predictions-{part}.parquet"

    def timings(self, candidate: Candidate) -> Path:
        return self.evidence(candidate) / "timings.parquet"

    def portrait(self, candidate: Candidate) -> Path:
        return self.evidence(candidate) / "portrait.parquet"

    def catalog(self) -> Catalog:
        """The stored catalog, with ``table`` pointing into this directory wherever it was moved to."""
        return Catalog.load(self.data / "catalog.json").model_copy(update={"table": self.catalog_table})

    @property
    def catalog_table(self) -> Path:
        return self.data / "catalog.parquet"

    def split(self) -> Split:
        return Split.load(self.data / "split.json").model_copy(update={"table": self.data / "split.parquet"})

    def load_candidates(self) -> list[Candidate]:
        """The candidates of this run, the baseline first."""
        found = []
        for row in files.read_json(self.candidates):
            artifact = load_artifact(self.root / row.pop("directory"))
            found.append(Candidate.described(artifact, row, self.candidates))
        return found

    def save_candidates(self, candidates: list[Candidate]) -> None:
        root = self.root.resolve()
        places = [one.artifact.directory.resolve().relative_to(root).as_posix() for one in candidates]
        rows = [{"directory": place, **one.description} for place, one in zip(places, candidates, strict=True)]
        files.write_json(self.candidates, rows)


def run_of(artifact: Artifact) -> Run:
    """The run that an artifact directory lies in."""
    run = Run(artifact.directory.parent.parent)
    if artifact.directory.resolve().parent.name != "artifacts" or not (run.data / "catalog.json").exists():
        raise ArtifactError(
            f"'{artifact.directory}' does not lie in a run, so its data cannot be found",
            hint="name an artifact below runs/NAME/artifacts",
        )
    return run


def slug(text: str) -> str:
    """A file name made of ``text``: letters (of any script), digits, dot, dash."""
    return re.sub(r"[^\w.=]+", "-", text).strip("-.") or "run"
