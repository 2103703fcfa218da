from __future__ import annotations

from pathlib import Path

import pytest

from torchstone.cli.rollout._store import opened
from torchstone.core.errors import ConfigError
from torchstone.serve.keys import Keys, key_of
from torchstone.serve.settings import ServeSettings, named_places, settings
from torchstone.serve.store import tables

KEY, OTHER, ADMIN = "a-key-of-twenty-chars", "another-key-of-some-length", "the-key-of-the-administrator"


def test_flags_stand_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "serve.toml"
    file.write_text('bundles = ["digits"]\nmax-batch = 4\nqueue = 7\n')
    found = settings({"queue": 9}, file)
    assert (found.bundles, found.max_batch, found.queue) == (("digits",), 4, 9)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('bundles = ["a"]\nmax-bach = 4', "did you mean 'max-batch'"),
        ('bundles = ["a"]\nqueue = 0', "queue = 0 is refused"),
        ("queue = 1", "no bundle was named"),
        ("queue = ", "is not TOML"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, content: str, words: str) -> None:
    file = tmp_path / "serve.toml"
    file.write_text(content)
    with pytest.raises(ConfigError) as caught:
        settings({}, file)
    assert words in str(caught.value)


def test_threads_are_shared_between_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchstone.core.machine.usable_cores", lambda: 8)
    assert ServeSettings(bundles=("a",), workers=2).threads_each == 4
    assert ServeSettings(bundles=("a",), workers=16).threads_each == 1
    assert ServeSettings(bundles=("a",), workers=2, threads=3).threads_each == 3


def test_a_bundle_is_called_like_its_run() -> None:
    assert [*named_places(("/bundle",))] == ["bundle"], "a container's"
    places = named_places(("runs/flowers/bundle", "models/cats", "best=elsewhere/bundle"))
    assert places == {
        "flowers": Path("runs/flowers/bundle"), "cats": Path("models/cats"), "best": Path("elsewhere/bundle"),
    }  # fmt: skip
    with pytest.raises(ConfigError, match="two bundles are called 'a'"):
        named_places(("x/a", "y/a"))
    with pytest.raises(ConfigError, match="cannot be called"):
        named_places(("../x=y",))


def test_a_rollout_finds_what_the_server_keeps_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the commands are typed: one in the folder of runs, the other for a candidate beside."""
    monkeypatch.chdir(tmp_path)

    def kept(bundle: str) -> Path:
        place = ServeSettings(bundles=(bundle,)).state_directory
        engine = tables.engine(tables.url_of(place, None))
        tables.create(engine)
        engine.dispose()
        return place

    def found(candidate: Path | None = None) -> Path:
        with opened(None, None, candidate) as connection:
            return Path(str(connection.engine.url.database)).parent

    with pytest.raises(ConfigError, match="no server keeps its state"):
        found()
    other = kept(str(tmp_path / "elsewhere" / "old" / "bundle"))
    assert found(tmp_path / "elsewhere" / "new" / "bundle") == other
    here = kept("runs/flowers/bundle")
    assert found() == found(Path("runs/new/bundle")) == here
    kept("runs/cats/bundle")
    with pytest.raises(ConfigError, match=r"several servers .* runs/cats/serve-state, runs/flowers/serve-state"):
        found()
    with opened(here, None) as connection:
        assert not connection.closed


def test_without_keys_all_but_administration_is_open() -> None:
    keys = Keys()
    assert keys.opens(None)
    assert not keys.administrable
    assert not keys.administers(b"")


def test_a_key_opens_and_an_admin_key_administers(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# of the shop\n{KEY}\n\n")
    chosen = ServeSettings(bundles=("a",), api_keys=file)
    keys = Keys.of(chosen, {"TORCHSTONE_API_KEYS": OTHER, "TORCHSTONE_ADMIN_KEYS": ADMIN})
    assert keys.required
    for key in (KEY, OTHER, ADMIN):
        assert keys.opens(key.encode())
    for wrong in (None, b"", KEY[:-1].encode(), b"\xff" * 20):
        assert not keys.opens(wrong)
        assert not keys.administers(wrong)
    assert keys.administers(ADMIN.encode())
    assert not keys.administers(KEY.encode())
    assert KEY not in repr(vars(keys))


@pytest.mark.parametrize("content", ["short", "", "# nothing\n", "schlüssel-mit-umlaut-und-länge"])
def test_a_key_that_is_no_secret_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "keys"
    file.write_text(content)
    with pytest.raises(ConfigError):
        Keys.of(ServeSettings(bundles=("a",), api_keys=file), {})
    with pytest.raises(ConfigError, match="cannot be read"):
        Keys.of(ServeSettings(bundles=("a",), api_keys=tmp_path / "none"), {})


def test_a_key_comes_in_one_of_two_headers() -> None:
    assert key_of([(b"host", b"x"), (b"authorization", b"Bearer abc")]) == b"abc"
    assert key_of([(b"x-api-key", b"abc")]) == b"abc"
    assert key_of([(b"authorization", b"Basic abc")]) is None
