"""Refuse an image that holds a secret: in a file that no package brought, in its variables or in its build's steps.

    python deploy/leaks.py localhost/torchstone-serve
    python deploy/leaks.py torchstone-serve --base docker.io/library/python:3.12-slim-bookworm

The patterns are those of `detect-secrets` but for the two that go by a text's entropy, which see one in every
digest. What a Debian or a Python package brought is public already, and is left out by the packages' own lists; what
the base image holds with the same bytes is that image's, whose own Python may be in no list. What a step of the build
wrote and a later one deleted is in a layer, and is not seen. A false alarm is silenced in ``HARMLESS``. Exits with 1
where something is found.
"""

from __future__ import annotations

import argparse
import contextlib
import filecmp
import os
import sys
import tempfile
from pathlib import Path

from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
from detect_secrets.core.secrets_collection import SecretsCollection
from detect_secrets.settings import transient_settings

from inside import Image, opened

BY_ENTROPY = ("Base64HighEntropyString", "HexHighEntropyString")
LARGEST = 2**20
"""Bytes; a larger file that nobody brought is named, not read."""
OURS = "torchstone"
"""The package that is built here: it was not published yet, and is read like what nobody brought."""
LISTS = ("var/lib/dpkg", "var/lib/apt", "var/cache")
"""Where Debian keeps what it knows of its packages."""
HARMLESS = {
    "/etc/nsswitch.conf: Secret Keyword": "'passwd' is the name of a database",
    "/torchstone/serve/keys.py: Secret Keyword": "names of the variables that hold the keys",
}
"""Ends of the suspects that a person has looked at, and why they are none."""


def unbrought(image: Image, base: Image | None) -> list[Path]:
    """Files of the image that stand in no package's list, and are not the base's."""
    listed = [
        line
        for names in (image.root / "var/lib/dpkg/info").glob("*.list")
        for line in names.read_text(encoding="utf-8").splitlines()
    ]
    # Debian's /bin, /lib and /sbin are links into /usr, and its lists name either.
    brought = {image.root / top / line.lstrip("/") for line in listed for top in ("", "usr")}
    for package in image.python_packages():
        if package.name != OURS:
            brought |= {Path(os.path.normpath(str(package.locate_file(path)))) for path in package.files or ()}
    lists = tuple(image.root / place for place in LISTS)
    return [
        path
        for path in sorted(image.root.rglob("*"))
        if path.is_file()
        and not path.is_symlink()
        and path not in brought
        and path.suffix != ".pyc"
        and not any(path.is_relative_to(place) for place in lists)
        and not (base is not None and _same(path, base.root / path.relative_to(image.root)))
    ]


def _same(path: Path, other: Path) -> bool:
    return other.is_file() and not other.is_symlink() and filecmp.cmp(path, other, shallow=False)


def found(image: Image, files: list[Path]) -> list[str]:
    """A line for each suspect."""
    suspects = [
        f"/{path.relative_to(image.root)}: large, and no package brought it"
        for path in files
        if path.stat().st_size > LARGEST
    ]
    plugins = sorted({one.__name__ for one in get_mapping_from_secret_type_to_class().values()} - set(BY_ENTROPY))
    with (
        transient_settings({"plugins_used": [{"name": name} for name in plugins]}),
        tempfile.TemporaryDirectory() as at,
    ):
        steps = Path(at, "steps and variables")
        steps.write_text("\n".join((*image.history, *image.variables)), encoding="utf-8")
        secrets = SecretsCollection()
        for path in (steps, *(path for path in files if path.stat().st_size <= LARGEST)):
            secrets.scan_file(str(path))
    for name, secret in secrets:
        place = Path(name)
        where = f"/{place.relative_to(image.root)}" if place.is_relative_to(image.root) else place.name
        suspects.append(f"{where}: {secret.type}, line {secret.line_number}")
    return [one for one in suspects if not one.partition(", line ")[0].endswith(tuple(HARMLESS))]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", help="its name, as podman knows it")
    parser.add_argument(
        "--base", help="the image that it was built on: what it has in common with that is not searched"
    )
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        image = stack.enter_context(opened(given.image))
        files = unbrought(image, stack.enter_context(opened(given.base)) if given.base else None)
        suspects = found(image, files)
    print("\n".join(suspects) if suspects else f"no secret found in {len(files):,} files of '{image.name}'")
    return 1 if suspects else 0


if __name__ == "__main__":
    sys.exit(main())
