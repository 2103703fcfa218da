"""An image's files as a folder, without starting it: what `sbom.py` and `leaks.py` read."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path


@dataclass(frozen=True)
class Image:
    """A built image. `id` is the digest of its configuration, hexadecimal; `created` is in RFC 3339."""

    name: str
    id: str
    created: str
    labels: dict[str, str]
    variables: tuple[str, ...]
    """Of its environment, ``NAME=value``."""
    history: tuple[str, ...]
    """The steps of its build."""
    root: Path

    def python_packages(self) -> list[metadata.Distribution]:
        """Those of the environment that the image runs, by name."""
        places = [str(path) for path in self.root.glob("opt/torchstone/lib/python3.*/site-packages")]
        return sorted(metadata.distributions(path=places), key=lambda one: one.name.lower())

    def debian_packages(self) -> list[dict[str, str]]:
        """Fields of each installed one, as dpkg keeps them."""
        status = self.root / "var/lib/dpkg/status"
        if not status.is_file():
            return []
        fields = [
            dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(" "))
            for block in status.read_text(encoding="utf-8").split("\n\n")
        ]
        return [one for one in fields if one.get("Status", "").endswith(" installed")]


@contextlib.contextmanager
def opened(name: str) -> Iterator[Image]:
    """Raises SystemExit with podman's own words where it cannot be mounted."""
    about = json.loads(_podman("image", "inspect", name))[0]
    history = json.loads(_podman("history", "--no-trunc", "--format", "json", name))
    try:
        yield Image(
            name=name,
            id=about["Id"],
            created=about["Created"],
            labels=about["Config"].get("Labels") or {},
            variables=tuple(about["Config"].get("Env") or ()),
            history=tuple(one.get("CreatedBy", "") for one in history),
            root=Path(_podman("image", "mount", name).strip()),
        )
    finally:
        subprocess.run(["podman", "image", "unmount", name], capture_output=True, check=False)


def _podman(*words: str) -> str:
    try:
        done = subprocess.run(["podman", *words], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise SystemExit(
            "error: 'podman' is not installed\nhint: apt-get install --no-install-recommends podman"
        ) from None
    if done.returncode:
        raise SystemExit(f"error: podman {words[0]} failed: {done.stderr.strip()}\nhint: deploy/build makes the image")
    return done.stdout
