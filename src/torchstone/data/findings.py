"""The findings of the data stages, in one file beside the catalog."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from torchstone.core import files
from torchstone.core.values import Finding

FILE = "findings.json"

ITEMS_NAMED = 48
"""Items that a finding about many images lists."""


def load(data_dir: Path) -> list[Finding]:
    """What reading and splitting noticed; an empty list before either has run."""
    path = data_dir / FILE
    return [Finding.model_validate(row) for row in files.read_json(path)] if path.exists() else []


def store(data_dir: Path, findings: Iterable[Finding]) -> None:
    files.write_json(data_dir / FILE, [finding.model_dump(mode="json") for finding in findings])


def replace(data_dir: Path, check: str, findings: Iterable[Finding]) -> None:
    """Store these as the findings of ``check``, in place of those it left before."""
    store(data_dir, [*(kept for kept in load(data_dir) if kept.check != check), *findings])


def name_a_few(names: Iterable[str], most: int = 3) -> str:
    """``a, b, c and 12 more``."""
    listed = list(names)
    rest = len(listed) - most
    return ", ".join(listed[:most]) + (f" and {rest:,} more" if rest > 0 else "")


def count_of(count: int, noun: str) -> str:
    """``1 image``, ``2,100 images``, ``2 classes``, ``2 boxes``."""
    plural = noun + ("es" if noun.endswith(("s", "x")) else "s")
    return f"{count:,} {noun if count == 1 else plural}"
