"""How long the command line takes to say something, against a Python that only starts: alternated, medians."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from conditions import conditions

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "torchstone --help": [sys.executable, "-m", "torchstone", "--help"],
    "torchstone run --help": [sys.executable, "-m", "torchstone", "run", "--help"],
}
ROUNDS = 15


def main() -> None:
    print(conditions())
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, command in COMMANDS.items():
            begin = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            seconds[name].append(time.perf_counter() - begin)
    for name, taken in seconds.items():
        print(f"{name:24} median {statistics.median(taken):.2f} s, {min(taken):.2f} to {max(taken):.2f}")


if __name__ == "__main__":
    main()
