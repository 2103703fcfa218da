"""A bundle without any server: one process decodes and answers images, one batch after the other, in batches as large
as ``torchstone serve`` would take of those that wait. Prints one line of JSON: images a second, the batch, and what it
answered to each image of the first round.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from torchstone.data.preprocess import prepare
from torchstone.serve.model import open_served
from torchstone.serve.settings import ServeSettings


def main(task: dict[str, Any]) -> None:
    contents = [Path(path).read_bytes() for path in task["images"]]
    served = open_served(Path(task["bundle"]), ServeSettings(bundles=(task["bundle"],), threads=1), "nothing")
    batch = served.take(task["waiting"])
    count = 0

    def answer() -> list[int]:
        nonlocal count
        taken = [contents[(count + number) % len(contents)] for number in range(batch)]
        count += batch
        pixels = np.stack([prepare(content, served.preprocess) for content in taken])
        return served.answer(pixels, 0).argmax(axis=1).tolist()

    said: list[int] = []
    while len(said) < len(contents):
        said += answer()
    until(task["warm_up"], answer)
    count = 0
    seconds = until(task["seconds"], answer)
    print(json.dumps({"rate": count / seconds, "batch": batch, "said": said[: len(contents)]}))


def until(seconds: float, work: Any) -> float:
    """Work for that long; how long it was."""
    began = time.perf_counter()
    while (spent := time.perf_counter() - began) < seconds:
        work()
    return spent


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
