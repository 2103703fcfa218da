"""What lies on the disk is whole or not there, says the same on every machine, and is named when it is damaged."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchstone.core import files, seeding, tables
from torchstone.core.errors import ArtifactError, StorageError


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )


def kill_when_ready(process: subprocess.Popen[str]) -> None:
    """``kill -9`` after the process printed its first line."""
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "ready"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize("resume", [False, True])
def test_a_directory_killed_midway_is_not_there(tmp_path: Path, resume: bool) -> None:
    place = tmp_path / "artifact"
    code = """
        import sys, time
        from pathlib import Path
        from torchstone.core import files
        with files.whole_directory(Path(sys.argv[1]), resume=sys.argv[2] == "True") as out:
            (out / "checkpoint").write_text("half")
            print("ready", flush=True)
            time.sleep(60)
        """
    kill_when_ready(python(code, place, resume))
    assert not place.exists()
    with files.whole_directory(place, resume=resume) as out:
        assert (out / "checkpoint").exists() is resume
        (out / "model").write_text("whole")
    assert (place / "model").read_text() == "whole"
    assert [path.name for path in tmp_path.iterdir()] == ["artifact"]


def test_a_directory_whose_maker_fails_leaves_what_was_there(tmp_path: Path) -> None:
    place = tmp_path / "artifact"
    with files.whole_directory(place) as out:
        (out / "model").write_text("first")
    with pytest.raises(RuntimeError), files.whole_directory(place) as out:
        (out / "model").write_text("second")
        raise RuntimeError("failed half-way")
    assert (place / "model").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["artifact"]
    with files.whole_directory(place) as out:
        (out / "other").write_text("third")
    assert [path.name for path in place.iterdir()] == ["other"]


def test_json_is_old_or_new_for_every_reader_and_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    code = """
        import sys
        from pathlib import Path
        from torchstone.core import files
        path, number = Path(sys.argv[1]), 0
        files.write_json(path, [0] * 20000)
        print("ready", flush=True)
        while True:
            number += 1
            files.write_json(path, [number] * 20000)
        """
    process = python(code, path)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    try:
        for _ in range(30):
            content = files.read_json(path)
            assert len(content) == 20000
            assert len(set(content)) == 1
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert len(set(files.read_json(path))) == 1


def test_json_that_cannot_be_written_leaves_the_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "value.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        files.write_json(path, {"a": float("nan")})

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write_json(path, {"a": 2})
    assert files.read_json(path) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["value.json"]


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b""])
def test_damaged_json_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "value.json").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"value\.json' is damaged") as caught:
        files.read_json(tmp_path / "value.json")
    assert caught.value.hint
    with pytest.raises(ArtifactError, match="does not exist"):
        files.read_json(tmp_path / "other.json")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@settings(deadline=None)  # a loaded machine is slow, not wrong
@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_a_digest_depends_on_the_content_alone(value: dict[str, object]) -> None:
    backwards = dict(reversed(value.items()))
    assert files.digest(backwards) == files.digest(value)
    assert files.digest(json.loads(json.dumps(value))) == files.digest(value)
    assert files.digest([value]) != files.digest(value)


def test_digests_and_seeds_are_the_same_on_every_machine_and_version() -> None:
    assert files.digest({"b": [1, 2.5, None], "a": "ü"}) == (
        "703dceec79c30480a5c3da98f5873d45349c66854150b1f903de556fe4042245"
    )
    assert seeding.seed_of("train", 3, 7) == 2840895582319464247
    assert int(seeding.generator("train", 3, 7).integers(1000)) == 4
    assert seeding.seed_of("a", "b") != seeding.seed_of("ab")


def test_a_directory_is_held_by_one_process_and_freed_when_it_dies(tmp_path: Path) -> None:
    code = """
        import sys, time
        from pathlib import Path
        from torchstone.core import files
        with files.locked(Path(sys.argv[1])):
            print("ready", flush=True)
            time.sleep(60)
        """
    process = python(code, tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    try:
        with pytest.raises(StorageError, match="another torchstone") as caught, files.locked(tmp_path):
            pass
        assert "--name" in (caught.value.hint or "")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    with files.locked(tmp_path):
        pass


def test_a_table_keeps_its_types_and_its_header(tmp_path: Path) -> None:
    import polars as pl

    path = tmp_path / "timings.parquet"
    table = tables.frame({"item": ["a", "b"], "label": [1, 2]}, {"label": pl.Int32})
    tables.write(path, table, {"threads": 2, "cpu": "a processor"})
    again, header = tables.read(path)
    assert header == {"threads": 2, "cpu": "a processor"}
    assert again.equals(table)
    assert again.schema["label"] == pl.Int32
    tables.write(path, table)
    assert tables.read(path)[1] == {}


def test_a_damaged_or_missing_table_is_named(tmp_path: Path) -> None:
    path = tmp_path / "timings.parquet"
    tables.write(path, tables.frame({"a": list(range(1000))}))
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"PAR1 nonsense PAR1"):
        path.write_bytes(damaged)
        with pytest.raises(ArtifactError, match=r"timings\.parquet") as caught:
            tables.read(path)
        assert caught.value.hint
    with pytest.raises(ArtifactError, match="does not exist"):
        tables.read(tmp_path / "other.parquet")


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    nowhere = [tmp_path / "file" / "below", tmp_path / "file"]
    if Path("/proc").is_dir():
        nowhere.append(Path("/proc/nope/deep"))
    for place in nowhere:
        with pytest.raises(StorageError, match="cannot make a directory") as refused:
            files.make_directory(place)
        assert refused.value.hint
    files.make_directory(tmp_path / "new" / "one")
    files.make_directory(tmp_path / "new" / "one")
    assert (tmp_path / "new" / "one").is_dir()
