"""Checkpoints on the disk: what is damaged is noticed, what cannot be written is said, what was there stays."""

from __future__ import annotations

import errno
import json
import math
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from torchstone.core import files
from torchstone.core.errors import ArtifactError, StorageError
from torchstone.train.checkpoint import Store

STATE: dict[str, Any] = {
    "network": {"a.weight": torch.arange(6.0).view(2, 3), "steps": torch.tensor(3)},
    "optimiser": {0: {"exp_avg": torch.ones(4, dtype=torch.bfloat16)}},
    "progress": {"epoch": 2, "best": [97.5, -math.inf], "history": [{"val_loss": math.nan}]},
    "nothing": {},
}


def same(found: Any, expected: Any) -> bool:
    if isinstance(expected, dict):
        return list(found) == [str(key) for key in expected] and all(
            same(found[str(key)], value) for key, value in expected.items()
        )
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(same, found, expected))
    if isinstance(expected, torch.Tensor):
        return found.dtype == expected.dtype and torch.equal(found, expected)
    return found == expected or (math.isnan(found) and math.isnan(expected))


def filled(directory: Path, count: int = 3, keep: int = 3) -> Store:
    store = Store(directory, keep)
    for number in range(count):
        store.save(number, {**STATE, "number": number})
    return store


def test_what_is_stored_comes_back(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save(7, STATE)
    name, found = store.newest() or ("", {})
    assert name == "step-00000007"
    assert same(found, STATE)


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    store = Store(tmp_path, keep=2)
    for number in range(6):
        if number in (1, 3):
            store.save_best(number, {"number": number})
        store.save(number, {"number": number})
    assert store.names() == ["step-00000005", "step-00000004"]
    assert sorted(path.name for path in tmp_path.glob("best-*")) == ["best-00000003.json", "best-00000003.safetensors"]
    assert store.best(3)["number"] == 3


def test_a_new_best_leaves_the_old_one_as_long_as_a_checkpoint_names_it(tmp_path: Path) -> None:
    """Whoever is killed, or finds the newest checkpoint damaged, goes on from one that names the old one."""
    store = Store(tmp_path, keep=2)
    store.save_best(1, {"number": 1})
    store.save(1, STATE)
    store.save_best(2, {"number": 2})
    assert store.best(1)["number"] == 1
    store.save(2, STATE)
    assert store.best(1)["number"] == 1
    store.save(3, STATE)
    with pytest.raises(ArtifactError):
        store.best(1)
    assert store.best(2)["number"] == 2


def test_the_best_of_an_epoch_that_is_not_over_does_not_outlive_the_one_before(tmp_path: Path) -> None:
    """Killed after the best weights were written and before the checkpoint, and killed again before that epoch's end:
    they are not those that any checkpoint names."""
    store = Store(tmp_path)
    store.save_best(2, {"number": 2})
    store.save(2, STATE)
    store.save(3, STATE)
    store.save_best(4, {"number": 4})
    store.forget_after(3)
    store.save(4, STATE)
    assert store.names("best") == ["best-00000002"]
    assert store.best(2)["number"] == 2


def test_a_damaged_checkpoint_does_not_count_as_the_newest_afterwards(tmp_path: Path) -> None:
    store = filled(tmp_path, keep=1)
    damage(tmp_path / "step-00000002.json", "cut")
    store.save(1, {**STATE, "number": 1})
    assert store.names() == ["step-00000002"], "what a training that goes on has to prevent"
    store = filled(tmp_path, keep=2)
    damage(tmp_path / "step-00000002.json", "cut")
    store.forget_after(1)
    Store(tmp_path, keep=1).save(1, {**STATE, "number": 1})
    assert store.names() == ["step-00000001"]


def test_the_json_is_json(tmp_path: Path) -> None:
    """Infinity and NaN, which Python would write, no other reader knows."""

    def refused(name: str) -> None:
        raise AssertionError(name)

    Store(tmp_path).save(7, STATE)
    json.loads((tmp_path / "step-00000007.json").read_text(), parse_constant=refused)


def test_a_checkpoint_of_another_version_is_told_from_a_damaged_one(tmp_path: Path) -> None:
    store = filled(tmp_path)
    place = tmp_path / "step-00000002.json"
    place.write_text(json.dumps({"format": 99}))
    with pytest.raises(ArtifactError, match=r"step-00000002.* was written by another version"):
        store.newest()


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "a bit":
        content[len(content) // 2] ^= 1
    path.write_bytes(b"" if how == "emptied" else content[: len(content) // 2] if how == "cut" else content)
    if how == "removed":
        path.unlink()


@pytest.mark.parametrize("suffix", ["safetensors", "json"])
@pytest.mark.parametrize("how", ["a bit", "cut", "emptied", "removed"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    suffix: str, how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = filled(tmp_path)
    damage(tmp_path / f"step-00000002.{suffix}", how)
    name, found = store.newest() or ("", {})
    assert (name, found["number"]) == ("step-00000001", 1)
    said = capsys.readouterr().err.replace("\n", " ")
    if (suffix, how) != ("json", "removed"):  # then it was never there
        assert "step-00000002" in said
        assert "going on from the one before" in said


def test_any_flipped_bit_is_noticed(tmp_path: Path) -> None:
    store = filled(tmp_path, count=1)
    draws = np.random.default_rng(0)
    for suffix in ("safetensors", "json"):
        path = tmp_path / f"step-00000000.{suffix}"
        whole = path.read_bytes()
        for place in draws.integers(0, len(whole), 60):
            content = bytearray(whole)
            content[place] ^= 1 << int(draws.integers(8))
            path.write_bytes(content)
            try:
                assert same(store.load("step-00000000"), {**STATE, "number": 0}), "white space may differ, nothing else"
            except ArtifactError:
                continue
        path.write_bytes(whole)


def test_where_all_are_damaged_nothing_starts_silently_from_the_beginning(tmp_path: Path) -> None:
    store = filled(tmp_path)
    for path in tmp_path.glob("*.safetensors"):
        damage(path, "cut")
    with pytest.raises(ArtifactError, match=r"every checkpoint in .* is damaged"):
        store.newest()


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The kernel itself refuses: files of this process may not grow beyond what the old checkpoints took."""
    store = filled(tmp_path)
    size = max(path.stat().st_size for path in tmp_path.iterdir())
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, old[1]))
    try:
        with pytest.raises(StorageError, match=r"disk is full.*'step-00000002' is kept") as refused:
            store.save(3, {**STATE, "large": torch.zeros(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert "free some space" in (refused.value.hint or "")
    assert (store.newest() or ("",))[0] == "step-00000002"
    assert not list(tmp_path.glob(".*")), "nothing half written is left"


def test_older_checkpoints_make_room_for_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a disk with room for five files: the three checkpoints there are take six."""
    store = filled(tmp_path)
    write = files.write_bytes

    def bounded(path: Path, content: bytes) -> None:
        if len(list(tmp_path.iterdir())) >= 5:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, content)

    monkeypatch.setattr(files, "write_bytes", bounded)
    store.save(3, {**STATE, "number": 3})
    assert store.names() == ["step-00000003", "step-00000002"]
    assert (store.newest() or ("", {}))[1]["number"] == 3


def test_a_place_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        Store(tmp_path / "file" / "checkpoints").open()
    with pytest.raises(StorageError, match="no permission"):
        Store(Path("/sys/kernel/checkpoints")).open()


def test_what_a_killed_process_left_half_written_is_cleared_away(tmp_path: Path) -> None:
    store = filled(tmp_path)
    (tmp_path / ".step-00000004.safetensors.77.tmp").write_bytes(b"half")
    store.open()
    assert not list(tmp_path.glob(".*"))
    assert len(store.names()) == 3
