"""cleanvision's checks, those that torchstone has as well, on one folder. Runs in an environment of its own."""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path

KINDS = {"dark": ("dark",), "bright": ("light",), "blurry": ("blurry",), "blank": ("low_information",),
         "odd size": ("odd_size", "odd_aspect_ratio")}  # fmt: skip


def main(folder: str) -> None:
    root = Path(folder).resolve()

    def name(path: str) -> str:
        return Path(path).resolve().relative_to(root).as_posix()

    imagelab = importlib.import_module("cleanvision").Imagelab
    importlib.import_module("imagehash")
    begin = time.perf_counter()
    lab = imagelab(data_path=folder)
    checks = [check for checks in KINDS.values() for check in checks]
    lab.find_issues({check: {} for check in (*checks, "exact_duplicates", "near_duplicates")}, verbose=False)
    seconds = time.perf_counter() - begin
    issues = lab.issues
    found = {
        kind: sorted({name(path) for check in checks for path in issues.index[issues[f"is_{check}_issue"]]})
        for kind, checks in KINDS.items()
    }
    sets = {
        ours: [[name(path) for path in group] for group in lab.info.get(theirs, {}).get("sets", [])]
        for ours, theirs in (("duplicates", "exact_duplicates"), ("near_duplicates", "near_duplicates"))
    }
    print(json.dumps({"seconds": seconds, "found": found, **sets}))


if __name__ == "__main__":
    main(sys.argv[1])
