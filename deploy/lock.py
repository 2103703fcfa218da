"""Write the hashed lock files of deploy/locks, or say which of them are not current.

    python deploy/lock.py            # resolve anew, with nothing that was published in the last week
    python deploy/lock.py --check    # do the stored ones still answer pyproject.toml? Exits with 1 where one does not,
                                     # or where no index can be asked

Each set of extras has a file for each Python, for Linux on x86-64: every Python package of the images, by its hash.
Needs `uv` (pip install uv), which resolves for a Python that is not the one that runs.
"""

from __future__ import annotations

import argparse
import datetime
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
LOCKS = HERE / "locks"
PYTHONS = ("3.11", "3.12", "3.13")
SETS = {
    "serve": ("serve",),
    "serve-openvino": ("serve", "openvino-runtime"),
    "train": ("train", "openvino", "lite", "fast", "search", "serve"),
    "lab": ("lab",),
}
"""What an image holds, as extras of pyproject.toml; besides them ``build`` holds what makes the wheel."""
UNREACHABLE = ("error sending request", "Failed to fetch", "Could not connect", "timed out", "dns error")
"""What the resolver says where there is no index, rather than no answer."""
AGE = datetime.timedelta(days=7)
"""How long a release must have been public: most that is malicious is found out within days."""
HEADER = re.compile(r"# nothing newer than (\S+)")


def inputs() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each set, and the extras that it takes; ``build`` takes none."""
    yield "build", ()
    yield from SETS.items()


def resolved(extras: tuple[str, ...], python: str, before: str) -> str:
    """The lock file of a set. Raises a SystemExit with the resolver's words, and a ConnectionError where it reaches no
    index."""
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv is None:
        raise SystemExit("error: 'uv' is not installed\nhint: pip install uv")
    with tempfile.TemporaryDirectory() as place:
        source = ROOT / "pyproject.toml"
        if not extras:
            source = Path(place) / "build.in"
            needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
            source.write_text("\n".join(needed) + "\n")
        command = [
            uv, "pip", "compile", str(source), *(f"--extra={extra}" for extra in extras), "--python-version", python,
            "--python-platform", "x86_64-manylinux_2_28", "--constraint", str(LOCKS / "constraints.in"),
            "--generate-hashes", "--exclude-newer", before, "--no-header", "--no-annotate", "--no-config", "--quiet",
        ]  # fmt: skip
        for pause in (5, 30, None):  # an index that is away for a moment is no reason to fail
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            away = done.returncode != 0 and any(words.lower() in done.stderr.lower() for words in UNREACHABLE)
            if not away:
                break
            if pause is None:
                raise ConnectionError(done.stderr)
            time.sleep(pause)
    if done.returncode:
        raise SystemExit(f"error: no lock for {', '.join(extras) or 'the build'} and Python {python}\n{done.stderr}")
    named = f"extras {', '.join(extras)}" if extras else "what makes the wheel"
    return (
        f"# {named}; Python {python}, Linux, x86-64; made by deploy/lock.py\n# nothing newer than {before}\n"
        + "".join(line for line in done.stdout.splitlines(keepends=True) if not line.startswith("#"))
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing, and exit with 1 where one is not current")
    check = parser.parse_args().check
    last = (datetime.datetime.now(datetime.UTC) - AGE).strftime("%Y-%m-%dT00:00:00Z")
    stale = []
    for name, extras in inputs():
        for python in PYTHONS:
            path = LOCKS / f"{name}-py{python}.txt"
            stored = path.read_text() if path.exists() else ""
            known = HEADER.search(stored)
            try:
                text = resolved(extras, python, known[1] if check and known else last)
            except ConnectionError as error:
                print(
                    f"not {'checked' if check else 'written'}: no package index can be reached\n{error}",
                    file=sys.stderr,
                )
                return 1
            if text != stored:
                stale.append(path.name)
                if not check:
                    path.write_text(text)
    verb = "not current" if check else "written"
    print(f"{verb}: {', '.join(stale)}" if stale else "all lock files are current")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
