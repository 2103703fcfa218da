"""Files and directories that are either whole or not there: written beside, then renamed."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import re
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock

from torchstone.core import console
from torchstone.core.errors import ArtifactError, ConfigError, StorageError, from_os_error

BARE = re.compile(
    r"^[ \t]*(?P<key>[\w.-]+)[ \t]*=[ \t]*(?!(?:true|false|inf|nan)\b)(?P<word>[A-Za-z][\w./:+@-]*)[ \t]*(?:#.*)?$",
    re.MULTILINE,
)
"""A line of TOML whose value is a word without quotes."""


def gzipped(path: Path) -> int:
    """Bytes of the file as gzip packs it, at the level that it has by default: what travels."""
    return len(gzip.compress(path.read_bytes(), compresslevel=6))


def make_directory(place: Path) -> None:
    """Make a directory with those above it; one that is there is kept. Raises a StorageError where there can be none:
    below a file, without permission, in a file system of the kernel's own such as /proc."""
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        refused = StorageError(
            f"cannot make a directory at '{place}': its file system allows none there",
            hint="choose another place for the results",
        )
        raise from_os_error(error) or refused from None


def write_bytes(path: Path, content: bytes) -> None:
    """Replace ``path`` by ``content`` in one step; a reader sees the old or the new, never a part."""
    make_directory(path.parent)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, sort_keys=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Parsed JSON of ``path``; a missing or damaged file is an ArtifactError that names it."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise ArtifactError(
            f"'{path}' does not exist", hint="is this the directory of a run, an artifact or a bundle?"
        ) from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ArtifactError(
            f"'{path}' is damaged: {error}", hint="delete it and type the command that made it again"
        ) from None


def read_toml(path: Path, what: str, *, hint: str | None = None) -> dict[str, Any]:
    """Parsed TOML of ``path``, which a person wrote; a ConfigError says that ``what`` ('the recipe') does not exist
    (then with ``hint``), or where it is no TOML."""
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"{what} '{path}' does not exist", hint=hint) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, IsADirectoryError, RecursionError) as error:
        bare = BARE.search(path.read_text()) if isinstance(error, tomllib.TOMLDecodeError) else None
        quoted = f'text stands in quotes: {bare["key"]} = "{bare["word"]}"' if bare else None
        raise ConfigError(f"{what} '{path}' is not TOML: {error}", hint=quoted) from None


@contextlib.contextmanager
def whole_directory(place: Path, *, resume: bool = False) -> Iterator[Path]:
    """A directory to fill; it becomes ``place`` when the block ends without an error.

    With ``resume``, what an interrupted earlier attempt left is kept for this one (checkpoints); otherwise each
    attempt starts empty.
    """
    partial = place.with_name(place.name + ".partial")
    if partial.exists() and not resume:
        shutil.rmtree(partial)
    make_directory(partial)
    try:
        yield partial
    except BaseException:
        if not resume:
            shutil.rmtree(partial, ignore_errors=True)
        raise
    if place.exists():  # two renames: what was there is never half deleted when the new one comes
        old = place.with_name(place.name + ".old")
        shutil.rmtree(old, ignore_errors=True)
        place.rename(old)
        partial.rename(place)
        shutil.rmtree(old)
    else:
        partial.rename(place)


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold ``directory`` for this process; a second process gets an error instead of a mixture."""
    make_directory(directory)
    lock = filelock.FileLock(directory / ".lock", timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise StorageError(
            f"another torchstone is at work in '{directory}'", hint="wait for it, or name another place (--name, --out)"
        ) from None
    try:
        yield
    finally:
        lock.release()
        if [path.name for path in directory.iterdir()] == [".lock"]:  # nothing came of it
            shutil.rmtree(directory)


@contextlib.contextmanager
def alone(lock_file: Path, waiting: str) -> Iterator[None]:
    """Be the one process that makes something: a second one waits for the first, and then finds it made. ``waiting`` is
    what a person is told of that."""
    make_directory(lock_file.parent)
    lock = filelock.FileLock(lock_file)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        console.say(f"another process is {waiting}: waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: Any) -> str:
    """Hex digest of a JSON-able value; the same value gives the same digest on every machine."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def remove(directory: Path) -> None:
    """Delete a directory and all that is in it; nothing happens where there is none."""
    if directory.exists():
        shutil.rmtree(directory)


def link_or_copy(source: Path, target: Path) -> None:
    """The same content at ``target``: a hard link where the file system allows it, else a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
