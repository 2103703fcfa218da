"""imagededup's perceptual hash with its own threshold, on one folder. Runs in an environment of its own."""

from __future__ import annotations

import importlib
import json
import sys
import time


def main(folder: str) -> None:
    method = importlib.import_module("imagededup.methods").PHash(verbose=False)
    begin = time.perf_counter()
    encodings = method.encode_images(image_dir=folder, recursive=True)
    pairs = method.find_duplicates(encoding_map=encodings)
    seconds = time.perf_counter() - begin
    groups = [[name, *others] for name, others in pairs.items() if others]
    print(json.dumps({"seconds": seconds, "found": {}, "duplicates": [], "near_duplicates": groups}))


if __name__ == "__main__":
    main(sys.argv[1])
