"""Checkpoints on the disk: tensors in a safetensors file, everything else in a JSON file beside it that holds the
checksums of both and is written last. A checkpoint without its JSON file is none, so that a killed process leaves the
one before."""

from __future__ import annotations

import errno
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from torchstone.core import console, files
from torchstone.core.errors import ArtifactError, StorageError, from_os_error

FORMAT = 2
TENSOR = "tensor:"
"""Stands in the JSON file for a tensor of this name."""
NUMBER = "number:"
"""Stands in the JSON file before a number that JSON does not have: inf, -inf, nan."""


class OtherFormatError(ArtifactError):
    """A checkpoint of another version of torchstone: it is whole, and none that could be taken instead is meant."""


@dataclass(frozen=True)
class Store:
    """The checkpoints of one training: the newest ``keep``, called ``step-NUMBER``, and the weights of the best epoch,
    called ``best-NUMBER``; the number is that of the steps taken before."""

    directory: Path
    keep: int = 2

    def open(self) -> None:
        """Make the directory, and clear away what a killed process left half written. Raises a StorageError where
        nothing can be written, before any work is done."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            for left in self.directory.glob(".*.tmp"):
                left.unlink()
            files.write_bytes(self.directory / ".open", b"")
            (self.directory / ".open").unlink()
        except OSError as error:
            raise from_os_error(error) or error from None

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Write the state after ``step`` steps, then let go of what is older than the newest ``keep``, and of weights
        that were the best for none of these."""
        self._write(f"step-{step:08d}", state)
        self._keep(self.keep)

    def _keep(self, count: int) -> None:
        """Let go of all but the newest ``count`` checkpoints, and of the best weights that none of them names: each
        names the newest that are not newer than itself."""
        names = self.names()
        for name in names[count:]:
            self._remove(name)
        steps, bests = [_number(name) for name in names[:count]], self.names("best")
        named = {max((best for best in bests if _number(best) <= step), default="") for step in steps}
        for best in bests:
            if best not in named and _number(best) <= max(steps, default=0):
                self._remove(best)

    def forget_after(self, step: int) -> None:
        """Remove what was written after ``step`` steps, where a training goes on from there: checkpoints that are
        damaged, and best weights that no checkpoint names. Else these would count as the newest."""
        for name in (*self.names(), *self.names("best")):
            if _number(name) > step:
                self._remove(name)

    def save_best(self, step: int, state: Mapping[str, Any]) -> None:
        """Write the weights of the best epoch so far. Those before stay as long as a checkpoint from before this epoch
        is kept: a training may go on from it."""
        self._write(f"best-{step:08d}", state)

    def best(self, step: int) -> dict[str, Any]:
        """What ``save_best`` wrote after ``step`` steps. Where it is damaged there is no other: an ArtifactError."""
        try:
            return self.load(f"best-{step:08d}")
        except ArtifactError as error:
            raise ArtifactError(
                error.message, hint=f"delete '{self.directory}': training starts again from the beginning"
            ) from None

    def names(self, kind: str = "step") -> list[str]:
        """The checkpoints there are, the newest first."""
        return sorted((path.stem for path in self.directory.glob(f"{kind}-*.json")), reverse=True)

    def newest(self) -> tuple[str, dict[str, Any]] | None:
        """Name and state to go on from: the newest that is whole, after saying which ones are damaged. None: there is
        none. Raises an ArtifactError where all of them are damaged."""
        names = self.names()
        for name in names:
            try:
                return name, self.load(name)
            except OtherFormatError:
                raise
            except ArtifactError as error:
                console.say(f"warning: {error.message}; going on from the one before")
        if names:
            raise ArtifactError(
                f"every checkpoint in '{self.directory}' is damaged",
                hint="delete that directory: training starts again from the beginning",
            )
        return None

    def load(self, name: str) -> dict[str, Any]:
        """The state stored as ``name``, after comparing both checksums; an ArtifactError says what is damaged."""
        place = self.directory / f"{name}.safetensors"
        try:
            described = json.loads(place.with_suffix(".json").read_text())
            if described["format"] != FORMAT:
                raise OtherFormatError(
                    f"the checkpoint '{place}' was written by another version of torchstone",
                    hint=f"delete '{self.directory}': training starts again from the beginning",
                )
            state = described["state"]
            content = place.read_bytes()
            if files.digest(_text(state)) != described["state_sha256"] or _sha256(content) != described["sha256"]:
                raise ValueError("its checksum differs")
            tensors = safetensors.torch.load(content)
            return _joined(state, tensors)
        except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
            raise ArtifactError(
                f"the checkpoint '{place}' is damaged ({error})", hint="delete it: an older one is taken"
            ) from None

    def _write(self, name: str, state: Mapping[str, Any]) -> None:
        tensors: dict[str, torch.Tensor] = {}
        plain = _split(state, "", tensors)
        content = safetensors.torch.save(tensors)
        described = {
            "format": FORMAT,
            "sha256": _sha256(content),
            "state_sha256": files.digest(_text(plain)),
            "state": plain,
        }
        try:
            self._put(name, content, described)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise self._refused(error) from None
            self._keep(1)  # the newest one is enough to go on from
            try:
                self._put(name, content, described)
            except OSError as again:
                raise self._refused(again) from None

    def _put(self, name: str, content: bytes, described: dict[str, Any]) -> None:
        """The tensors first. Where a checkpoint of this name stands, it counts as damaged between the two writes."""
        place = self.directory / f"{name}.safetensors"
        files.write_bytes(place, content)
        files.write_text(place.with_suffix(".json"), json.dumps(described, indent=1, allow_nan=False) + "\n")

    def _refused(self, error: OSError) -> Exception:
        known = from_os_error(error)
        if known is None:
            return error
        last = next(iter(self.names()), None)
        kept = f"the checkpoint '{last}' is kept" if last else "there is no checkpoint yet"
        return StorageError(f"a checkpoint cannot be written: {known.message}; {kept}", hint=known.hint)

    def _remove(self, name: str) -> None:
        for suffix in (".json", ".safetensors"):  # without the first it is none
            (self.directory / f"{name}{suffix}").unlink(missing_ok=True)


def _split(value: Any, place: str, tensors: dict[str, torch.Tensor]) -> Any:
    """``value`` with each tensor moved to ``tensors`` and named in its place, so that JSON can hold the rest."""
    if isinstance(value, torch.Tensor):
        tensors[place] = value.detach().cpu().contiguous().clone()
        return TENSOR + place
    if isinstance(value, Mapping):
        return {str(key): _split(inner, f"{place}{'.' if place else ''}{key}", tensors) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_split(inner, f"{place}.{number}", tensors) for number, inner in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        return NUMBER + str(float(value))
    return value


def _joined(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """What ``_split`` took apart; keys are texts, and tuples have become lists."""
    if isinstance(value, str) and value.startswith(TENSOR):
        return tensors[value.removeprefix(TENSOR)]
    if isinstance(value, str) and value.startswith(NUMBER):
        return float(value.removeprefix(NUMBER))
    if isinstance(value, dict):
        return {key: _joined(inner, tensors) for key, inner in value.items()}
    if isinstance(value, list):
        return [_joined(inner, tensors) for inner in value]
    return value


def _text(state: Any) -> str:
    """The same before and after a round trip through JSON."""
    return json.dumps(state, sort_keys=True, allow_nan=False)


def _number(name: str) -> int:
    """Steps taken before ``step-NUMBER`` or ``best-NUMBER``; -1 for another name."""
    digits = name.rpartition("-")[2]
    return int(digits) if digits.isdecimal() else -1


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
