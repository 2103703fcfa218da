"""How well wrong labels are found: labels are changed at random, and the audit ranks all images by how little it
believes theirs.

The labels that the images came with count as right, which they are not all: what is truly wrong among them lowers the
figures. AUROC is of the ranking of all images; precision is that of as many images as were changed, the least
believed ones, of those that the audit names as probably wrong, and of all that confident learning doubts.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from conditions import conditions
from torchstone.audit import probe, two_sample
from torchstone.audit.features import Features, extract
from torchstone.audit.label_errors import suspects, wrong
from torchstone.core import tables
from torchstone.core.errors import UserError
from torchstone.data.catalog import read
from torchstone.data.units import units


def changed(labels: np.ndarray, share: float, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The labels with this share of them replaced by others, each as likely; and where."""
    random = np.random.default_rng(seed)
    rows = random.choice(len(labels), round(share * len(labels)), replace=False)
    given = labels.copy()
    given[rows] = (labels[rows] + random.integers(1, classes, len(rows))) % classes
    return given, given != labels


def measure(table: Any, classes: int, features: Features, share: float, seed: int) -> np.ndarray:
    """AUROC, precision at the number changed; images named, their precision and recall; the same of all that are
    doubted; seconds."""
    labels = table["label"].to_numpy().astype(np.intp)
    given, planted = changed(labels, share, classes, seed)
    begin = time.perf_counter()
    fitted = probe.fit(features.vectors, given, probe.folds_of(given, units(table, 0, "label_errors")), classes)
    found = suspects(fitted, features.vectors, given, classes)
    chance, _ = wrong(fitted, features.vectors, given)
    seconds = time.perf_counter() - begin
    first = np.argsort(found.confidence, kind="stable")[: planted.sum()]
    doubt = -found.confidence.astype(np.float64)
    named, doubted = planted[found.rows[chance[found.rows] > 0.5]], planted[found.rows]
    return np.array(
        [
            two_sample.auc(doubt[planted], doubt[~planted]),
            planted[first].mean(),
            len(named),
            named.mean(),
            named.sum() / planted.sum(),
            len(doubted),
            doubted.mean(),
            doubted.sum() / planted.sum(),
            seconds,
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="?", default="digits", help="images whose labels are mostly right")
    parser.add_argument("--share", type=float, default=0.05, help="of the labels that are changed")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cache", type=Path, help="where features are kept; by default nowhere")
    options = parser.parse_args()
    print(conditions())
    with tempfile.TemporaryDirectory() as scratch:
        try:
            catalog = read(options.data, Path(scratch) / "data")
            begin = time.perf_counter()
            features = extract(catalog, options.cache or Path(scratch) / "cache")
        except UserError as error:
            raise SystemExit(f"error: {error}") from None
        seconds = time.perf_counter() - begin
        print(f"{catalog.images} images, {features.name}: {seconds:.1f} s with imports and compilation, once")
        table, _ = tables.read(catalog.table)
        heads = (
            "seed",
            "AUROC",
            "precision at number",
            "named",
            "precision",
            "recall",
            "doubted",
            "precision",
            "recall",
            "s",
        )
        print("  ".join(heads))
        rows = [measure(table, len(catalog.classes), features, options.share, seed) for seed in range(options.seeds)]
        for name, row in [*enumerate(rows), ("mean", np.mean(rows, axis=0))]:
            cells = [
                f"{value:.0f}" if head in ("named", "doubted") else f"{value:.3f}"
                for head, value in zip(heads[1:], row, strict=True)
            ]
            print("  ".join(f"{cell:>{len(head)}}" for head, cell in zip(heads, [str(name), *cells], strict=True)))
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"peak memory of the process, network included: {memory:.0f} MiB")


if __name__ == "__main__":
    main()
