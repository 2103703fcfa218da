"""Whether a server answers what the evaluation did: every test image of a run, sent over HTTP to its bundle, beside the
predictions that the judge stored. Several are on their way at once, so that batches are of all sizes."""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conditions import conditions
from printing import printed, written
from served import serving
from torchstone.core import tables
from torchstone.core.errors import UserError
from torchstone.core.run import Run
from torchstone.data.images import Originals
from torchstone.evaluate import metrics, predict
from torchstone.export import bundle

CLIENTS = 8
EXACT, NEAR = 1e-5, 1e-2
"""Difference in probability that is allowed: in FP32; and in INT8 and BF16, whose kernels may differ by batch size."""


def answered(port: int, images: list[bytes], classes: int) -> NDArray[np.float32]:
    """float32[n, classes] of probabilities, over one connection."""
    found = np.full((len(images), classes), np.nan, np.float32)
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=120)) as connection:
        for row, image in enumerate(images):
            connection.request("POST", f"/v1/classify?top={classes}", image)
            reply = connection.getresponse()
            content = reply.read()
            if reply.status != http.client.OK:
                raise SystemExit(f"error: an image was answered with {reply.status}: {content.decode()}")
            for one in json.loads(content)["predictions"][0]["top"]:
                found[row, one["index"]] = one["probability"]
    return found


def compared(run: Run) -> dict[str, Any]:
    candidate = bundle.load(run.bundle)
    known = predict.load(run.predictions(candidate, "test"))
    expected = metrics.softmax(known.scores)
    catalog = run.catalog()
    originals = Originals(catalog.root, catalog.reader, tables.read(catalog.table)[0])
    rows = {item: row for row, item in enumerate(originals.items.tolist())}
    images = [originals.encoded(rows[item]) for item in known.items.tolist()]
    parts = [list(range(first, len(images), CLIENTS)) for first in range(CLIENTS)]
    found = np.empty_like(expected)
    with (
        tempfile.TemporaryDirectory() as state,
        serving(run.bundle, "--cache", "none", "--state", state) as server,
        ThreadPoolExecutor(CLIENTS) as pool,
    ):
        given = pool.map(lambda part: answered(server.port, [images[row] for row in part], expected.shape[1]), parts)
        for part, probabilities in zip(parts, given, strict=True):
            found[part] = probabilities
    difference = np.abs(found - expected).max(axis=1)
    other = found.argmax(axis=1) != expected.argmax(axis=1)
    ordered = np.sort(expected, axis=1)
    allowed = EXACT if candidate.options.precision == "f32" and candidate.free else NEAR
    ties = other & (ordered[:, -1] - ordered[:, -2] <= 2 * allowed)
    return {
        "candidate": candidate.name, "images": len(images), "allowed": allowed, "difference": float(difference.max()),
        "other_top1": int(other.sum()), "near_ties": int(ties.sum()),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="one that has a bundle")
    parser.add_argument("--json", type=Path, default=Path("serve_answers.json"))
    given = parser.parse_args()
    print(conditions())
    try:
        found = compared(Run(given.run))
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
    near = found["difference"] <= found["allowed"]
    same = found["other_top1"] == found["near_ties"]
    printed(
        f"{found['candidate']}, {found['images']:,} test images of {given.run}",
        ("what", "found", "bar"),
        [
            ["largest difference in probability", f"{found['difference']:.1e}", f"{found['allowed']:g}: {_bar(near)}"],
            ["images with another top-1", str(found["other_top1"]), f"{found['near_ties']} near-ties: {_bar(same)}"],
        ],
    )
    written(given.json, run=str(given.run), **found)


def _bar(met: bool) -> str:
    return "met" if met else "missed"


if __name__ == "__main__":
    main()
