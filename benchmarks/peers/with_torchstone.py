"""torchstone's audit without features, on one folder. Prints one line of JSON: seconds, names, sets of duplicates."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy  # noqa: F401  what a first call would import is no part of the work
import polars  # noqa: F401

from torchstone.audit import audit
from torchstone.core import console
from torchstone.core.registry import data_checks
from torchstone.data.catalog import read
from torchstone.data.findings import load

KINDS = {"dark": ("dark",), "bright": ("bright",), "blurry": ("blurry",), "blank": ("blank", "low_contrast"),
         "odd size": ("size_outliers",)}  # fmt: skip


def main(folder: str) -> None:
    console.be_quiet()
    for name in data_checks.names():
        data_checks.get(name)
    with tempfile.TemporaryDirectory() as scratch:
        begin = time.perf_counter()
        catalog = read(folder, Path(scratch))
        findings = audit(catalog, load(Path(scratch)))
        seconds = time.perf_counter() - begin
    found = {
        kind: sorted({item for finding in findings if finding.check in checks for item in finding.items})
        for kind, checks in KINDS.items()
    }
    groups = {
        check: [list(group) for finding in findings if finding.check == check for group in finding.groups]
        for check in ("duplicates", "near_duplicates")
    }
    print(json.dumps({"seconds": seconds, "found": found, **groups}))


if __name__ == "__main__":
    main(sys.argv[1])
