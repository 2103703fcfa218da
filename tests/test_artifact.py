"""What an artifact knows of its making: the seconds that it took, and what it was made from."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from torchstone.core import artifact as artifacts
from torchstone.core.errors import ArtifactError
from torchstone.core.values import Artifact, MadeBy, Preprocess

DRAFT = Artifact(
    id="", key="", format="onnx", files={}, architecture="lenet5", classes=("cat", "dog"),
    preprocess=Preprocess(decoder_version="12.0", resize=36, crop=32), made_by=MadeBy(step="onnx", version=1),
    split_fingerprint="d" * 64,
)  # fmt: skip


def made(directory: Path) -> Artifact:
    (directory / "model.onnx").write_bytes(b"a model")
    return artifacts.identified(DRAFT, directory)


def killed(directory: Path) -> Artifact:
    (directory / artifacts.CHECKPOINTS).mkdir(exist_ok=True)
    (directory / artifacts.CHECKPOINTS / "step-1").write_bytes(b"half of it")
    raise KeyboardInterrupt


def attempted(place: Path, seconds: float) -> Path:
    """The clock of an attempt that was killed so long after it began."""
    with pytest.raises(KeyboardInterrupt):
        artifacts.build(place, killed, resume=True)
    partial = place.with_name(place.name + ".partial")
    last = (partial / artifacts.CLOCK).stat().st_mtime + seconds
    os.utime(partial / artifacts.CHECKPOINTS / "step-1", (last, last))
    return partial / artifacts.CLOCK


def test_an_artifact_knows_what_making_it_took(tmp_path: Path) -> None:
    def slowly(directory: Path) -> Artifact:
        time.sleep(0.05)
        return made(directory)

    started = time.monotonic()
    found = artifacts.build(tmp_path / "key", slowly)
    assert found.seconds is not None
    assert 0.05 <= found.seconds <= time.monotonic() - started
    assert artifacts.build(tmp_path / "key", made) == found, "what stands there was not made again"


def test_what_is_made_again_from_the_beginning_counts_once(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        artifacts.build(tmp_path / "key", killed)
    started = time.monotonic()
    seconds = artifacts.build(tmp_path / "key", made).seconds
    assert seconds is not None
    assert seconds <= time.monotonic() - started


def test_attempts_that_are_gone_on_from_add_up_without_the_time_between(tmp_path: Path) -> None:
    place = tmp_path / "key"
    attempted(place, 100)
    clock = attempted(place, 30)
    assert clock.stat().st_mtime <= time.time()
    started = time.monotonic()
    found = artifacts.build(place, made, resume=True)
    own = time.monotonic() - started
    assert found.seconds is not None
    assert 130 <= found.seconds <= 130 + own + 1  # what the second attempt took before it wrote
    assert not (place / artifacts.CLOCK).exists()


def test_what_was_copied_here_does_not_say_how_long_it_took(tmp_path: Path) -> None:
    place = tmp_path / "key"
    clock = attempted(place, 100)
    later = clock.stat().st_mtime + 1000
    os.utime(clock, (later, later))
    assert artifacts.build(place, made, resume=True).seconds is None
    clock = attempted(tmp_path / "other", 100)
    clock.unlink()
    assert artifacts.build(tmp_path / "other", made, resume=True).seconds is None


def stored(root: Path, name: str, parent: str | None, chain: str, id: str | None = None) -> Artifact:
    one = DRAFT.model_copy(
        update={"id": id or name, "key": name, "parent": parent, "chain": chain, "directory": root / name}
    )
    one.directory.mkdir()
    one.save(one.directory / "artifact.json")
    return one


def test_the_way_to_an_artifact_goes_back_to_the_model_it_began_with(tmp_path: Path) -> None:
    origin = stored(tmp_path, "trained", None, "")
    stored(tmp_path, "a-twin", "trained", "resolution=24", id="pruned")
    stored(tmp_path, "pruned", "trained", "prune=0.3")
    stored(tmp_path, "b-twin", "trained", "sparsify=0.1", id="pruned")
    last = stored(tmp_path, "int8", "pruned", "prune=0.3+int8")
    way = artifacts.lineage(last)
    assert [one.key for one in way] == ["trained", "pruned", "int8"]
    assert [one.directory for one in way] == [tmp_path / one.key for one in way]
    assert artifacts.lineage(origin) == [origin]


def test_a_step_that_changed_nothing_ends_the_way_all_the_same(tmp_path: Path) -> None:
    stored(tmp_path, "trained", None, "")
    stored(tmp_path, "same", "trained", "finetune=1", id="trained")
    last = stored(tmp_path, "again", "trained", "finetune=1+finetune=1", id="trained")
    assert [one.key for one in artifacts.lineage(last)] == ["trained", "same", "again"]


def test_a_way_with_a_hole_is_refused(tmp_path: Path) -> None:
    last = stored(tmp_path, "int8", "pruned", "prune=0.3+int8")
    with pytest.raises(ArtifactError, match=r"'prune=0\.3\+int8' was made from is gone"):
        artifacts.lineage(last)
