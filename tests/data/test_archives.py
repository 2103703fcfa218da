"""Archives read like the folders that were packed, and what is wrong with one is said, not followed."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from torchstone.core.errors import DataError
from torchstone.data.readers.archive import Archive
from torchstone.data.readers.folder import Folder
from torchstone.data.sources import archives, find_reader, source_digest, trees

MakeFolder = Callable[..., Path]
KINDS = ("zip", "stored.zip", "tar", "tar.gz", "tar.bz2")


def pack(folder: Path, place: Path, kind: str, top: str = "") -> Path:
    """An archive of ``folder``, as the folder ``top`` within it."""
    path = place / f"images.{kind}"
    if kind.endswith("zip"):
        method = zipfile.ZIP_STORED if kind == "stored.zip" else zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(path, "w", method) as archive:
            for file in sorted(folder.rglob("*")):
                archive.write(file, Path(top) / file.relative_to(folder))
    else:
        with tarfile.open(path, "w:gz" if kind == "tar.gz" else "w:bz2" if kind == "tar.bz2" else "w:") as archive:
            archive.add(folder, top or ".")
    return path


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("top", ["", "set/images"])
def test_an_archive_reads_like_its_folder(tmp_path: Path, make_folder: MakeFolder, kind: str, top: str) -> None:
    root = make_folder({f"{part}/{name}": 2 for part in ("train", "val") for name in ("9", "10")})
    (root / "train" / "notes.txt").touch()
    (root / "classes.txt").write_text("9 cat\n10 dog\n")
    path = str(pack(root, tmp_path, kind, top))
    assert find_reader(path) == (path, "archive")
    packed, unpacked = Archive().listing(path), Folder().listing(str(root))
    assert packed.classes == unpacked.classes == ("cat", "dog")
    assert packed.paths == unpacked.paths
    assert packed.labels == unpacked.labels
    assert packed.parts == unpacked.parts
    assert packed.findings == unpacked.findings
    for item in packed.paths:
        assert Archive().image(path, item) == Folder().image(str(root), item)


NAMES = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="/\0:\\"), min_size=1, max_size=20)


@hypothesis.settings(
    max_examples=40, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture], derandomize=True
)
@hypothesis.given(
    classes=st.lists(
        NAMES.filter(lambda name: name.strip(" .") and name[0] != "."), min_size=2, max_size=4, unique=True
    ),
    kind=st.sampled_from(["zip", "tar"]),
)
def test_any_names_read_as_in_their_folder(
    tmp_path_factory: pytest.TempPathFactory, classes: list[str], kind: str
) -> None:
    place = tmp_path_factory.mktemp("names")
    root = place / "images"
    for name in classes:
        (root / name).mkdir(parents=True)
        (root / name / f"{name}.png").write_text(name)
    path = str(pack(root, place, kind))
    assert Archive().listing(path).classes == Folder().listing(str(root)).classes
    assert sorted(Archive().image(path, item).decode() for item in Archive().listing(path).paths) == sorted(classes)


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_threads_read_at_once(tmp_path: Path, make_folder: MakeFolder, kind: str) -> None:
    root = make_folder({"a": 40, "b": 40})
    path = str(pack(root, tmp_path, kind))
    items = list(Archive().listing(path).paths)
    expected = [(root / item).read_bytes() for item in items]
    shuffled = np.random.default_rng(0).permutation(len(items)).tolist()
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda row: Archive().image(path, items[row]), shuffled * 5))
    assert read == [expected[row] for row in shuffled * 5]


def test_a_changed_archive_is_read_again(tmp_path: Path, make_folder: MakeFolder) -> None:
    root = make_folder({"a": 2, "b": 2})
    path = str(pack(root, tmp_path, "zip"))
    before = source_digest(path)
    assert len(Archive().listing(path).paths) == 4
    make_folder({"b": 5}, start=50)
    pack(root, tmp_path, "zip")
    assert len(Archive().listing(path).paths) == 7
    assert source_digest(path) != before


class TestNamesFromOutside:
    """Nothing is extracted, so that no name can do harm; those that were meant to are reported all the same."""

    HOSTILE = ("../evil.png", "/etc/evil.png", "a/../../evil.png", "C:/evil.png", "a\\..\\..\\evil.png")

    @pytest.mark.parametrize("kind", ["zip", "tar"])
    def test_names_that_lead_out_are_left_out(self, tmp_path: Path, make_folder: MakeFolder, kind: str) -> None:
        path = pack(make_folder({"a": 2, "b": 2}), tmp_path, kind)
        for name in self.HOSTILE:
            append(path, name, b"evil")
        before = set(tmp_path.rglob("*"))
        listing = Archive().listing(str(path))
        assert list(listing.paths) == ["a/0.png", "a/1.png", "b/0.png", "b/1.png"]
        (finding,) = listing.findings
        assert finding.check == "archive"
        assert finding.severity == "warning"
        assert finding.evidence == {"members": len(self.HOSTILE)}
        for item in (*self.HOSTILE, "../images/a/0.png"):
            with pytest.raises(OSError, match="no such member"):
                Archive().image(str(path), item)
        assert set(tmp_path.rglob("*")) == before

    def test_links_are_not_followed_and_hard_links_give_their_member(
        self, tmp_path: Path, make_folder: MakeFolder
    ) -> None:
        root = make_folder({"a": 2, "b": 1})
        os.link(root / "a" / "1.png", root / "b" / "hard.png")
        (root / "b" / "soft.png").symlink_to("/etc/hostname")
        os.mkfifo(root / "b" / "pipe.png")
        path = str(pack(root, tmp_path, "tar"))
        listing = Archive().listing(path)
        assert "b/hard.png" in listing.paths
        assert Archive().image(path, "b/hard.png") == (root / "a" / "1.png").read_bytes()
        assert listing.findings[0].items == ("b/pipe.png", "b/soft.png")

    def test_links_in_a_zip_are_not_followed(self, tmp_path: Path, make_folder: MakeFolder) -> None:
        path = pack(make_folder({"a": 2, "b": 1}), tmp_path, "zip")
        link = zipfile.ZipInfo("b/soft.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(link, "/etc/hostname")
        listing = Archive().listing(str(path))
        assert "b/soft.png" not in listing.paths
        assert listing.findings[0].items == ("b/soft.png",)

    @pytest.mark.filterwarnings("ignore:Duplicate name")
    @pytest.mark.parametrize("kind", ["zip", "tar"])
    def test_of_two_members_of_one_name_the_last_counts(
        self, tmp_path: Path, make_folder: MakeFolder, kind: str
    ) -> None:
        path = pack(make_folder({"a": 2, "b": 1}), tmp_path, kind)
        append(path, "a/0.png", b"the second")
        listing = Archive().listing(str(path))
        assert list(listing.paths).count("a/0.png") == 1
        assert Archive().image(str(path), "a/0.png") == b"the second"
        assert listing.findings[0].items == ("a/0.png",)

    def test_a_name_of_a_thousand_folders_is_left_out(self, tmp_path: Path, make_folder: MakeFolder) -> None:
        path = pack(make_folder({"a": 1, "b": 1}), tmp_path, "zip")
        append(path, "a/" * 1000 + "deep.png", b"")
        (finding,) = Archive().listing(str(path)).findings
        assert finding.evidence == {"members": 1}
        assert len(finding.message) < 300

    def test_a_name_that_is_no_utf8_is_passed_over(self, tmp_path: Path, make_folder: MakeFolder) -> None:
        path = pack(make_folder({"a": 1, "b": 1}), tmp_path, "tar")
        append(path, os.fsdecode(b"a/\xff.png"), b"x")
        listing = Archive().listing(str(path))
        assert len(listing.paths) == 2
        assert listing.findings[0].items == ("a/\\xff.png",)
        listing.findings[0].model_dump_json()


def append(path: Path, name: str, content: bytes) -> None:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(name, content)
    else:
        with tarfile.open(path, "a", encoding="utf-8", errors="surrogateescape") as archive:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


class TestDamage:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("keep", [0.0, 0.02, 0.5, 0.9])
    def test_an_archive_cut_short_is_refused(
        self, tmp_path: Path, make_folder: MakeFolder, kind: str, keep: float
    ) -> None:
        whole = pack(make_folder({"a": 8, "b": 8}), tmp_path, kind)
        cut = tmp_path / f"cut.{kind}"
        cut.write_bytes(whole.read_bytes()[: round(keep * whole.stat().st_size)])
        with pytest.raises(DataError, match=r"damaged|no archive") as caught:
            Archive().listing(str(cut))
        assert caught.value.hint

    def test_an_encrypted_image_is_not_read(self, tmp_path: Path) -> None:
        path = tmp_path / "images.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/0.png", b"secret")
            archive.writestr("b/0.png", b"open")
        content = bytearray(path.read_bytes())
        content[content.index(b"PK\x01\x02") + 8] |= 1
        path.write_bytes(content)
        assert len(Archive().listing(str(path)).paths) == 2
        with pytest.raises(DataError, match="encrypted") as caught:
            Archive().image(str(path), "a/0.png")
        assert "password" in str(caught.value.hint)
        assert Archive().image(str(path), "b/0.png") == b"open"

    def test_a_member_whose_checksum_differs_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "images.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr("a/0.png", b"some pixels")
            archive.writestr("b/0.png", b"others")
        path.write_bytes(path.read_bytes().replace(b"some pixels", b"sane pixels"))
        assert len(Archive().listing(str(path)).paths) == 2
        with pytest.raises(DataError, match="checksum"):
            Archive().image(str(path), "a/0.png")

    def test_a_method_that_is_not_read_is_named(self, tmp_path: Path) -> None:
        path = tmp_path / "images.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
            archive.writestr("a/0.png", b"pixels" * 50)
            archive.writestr("b/0.png", b"pixels" * 50)
        with pytest.raises(DataError, match="method 14"):
            Archive().image(str(path), "a/0.png")

    @hypothesis.settings(
        max_examples=60, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture], derandomize=True
    )
    @hypothesis.given(data=st.data(), kind=st.sampled_from(KINDS))
    def test_flipped_bytes_raise_nothing_but_a_users_error(
        self, tmp_path: Path, make_folder: MakeFolder, data: st.DataObject, kind: str
    ) -> None:
        whole = tmp_path / f"images.{kind}"
        if not whole.exists():
            pack(make_folder({"a": 3, "b": 3}), tmp_path, kind)
        content = bytearray(whole.read_bytes())
        for _ in range(data.draw(st.integers(1, 8))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        broken = tmp_path / f"broken.{kind}"
        broken.write_bytes(content)
        try:
            for item in Archive().listing(str(broken)).paths:
                Archive().image(str(broken), item)
        except (DataError, OSError):
            pass


class TestBombs:
    def test_a_compressed_tar_that_grows_too_much_is_stopped(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(archives, "ALWAYS_ALLOWED", 2**20)
        path = tmp_path / "bomb.tar.gz"
        with gzip.open(path, "wb") as file:
            for _ in range(64):
                file.write(bytes(2**20))
        with pytest.raises(DataError, match="decompression bomb"):
            Archive().listing(str(path))

    def test_a_member_that_announces_too_much_is_not_decompressed(self, tmp_path: Path) -> None:
        path = tmp_path / "bomb.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            archive.writestr("b/0.png", b"small")
            with archive.open("a/0.png", "w", force_zip64=True) as member:
                for _ in range(trees.MAX_FILE // 2**24 + 1):
                    member.write(bytes(2**24))
        with pytest.raises(DataError, match="more than the 268 MB"):
            Archive().image(str(path), "a/0.png")

    def test_a_member_that_holds_more_than_it_announces_is_cut_off(self, tmp_path: Path) -> None:
        path = tmp_path / "liar.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a/0.png", bytes(10_000_000))
            archive.writestr("b/0.png", b"small")
        content = bytearray(path.read_bytes())
        central = content.index(b"PK\x01\x02")
        content[central + 24 : central + 28] = (100).to_bytes(4, "little")  # uncompressed size
        path.write_bytes(content)
        with pytest.raises(DataError, match="size or checksum differ"):
            Archive().image(str(path), "a/0.png")

    def test_a_tar_header_that_announces_gigabytes_is_not_read(self, tmp_path: Path) -> None:
        path = tmp_path / "header.tar"
        info = tarfile.TarInfo("x")
        info.type, info.size = tarfile.XHDTYPE, 2**33  # a pax header, which tarfile reads into memory
        path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
        with path.open("r+b") as file:
            file.truncate(2**33 + 20480)  # a hole
        with pytest.raises(DataError, match="a header announces"):
            Archive().listing(str(path))


def test_threads_that_ask_at_once_unpack_an_archive_once(
    tmp_path: Path, make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_folder({"cat": 3, "dog": 3})
    path = str(pack(root, tmp_path, "tar.gz"))
    opened: list[str] = []

    class Slow(archives.ArchiveTree):
        def __init__(self, root: str) -> None:
            opened.append(root)
            time.sleep(0.05)
            super().__init__(root)

    monkeypatch.setattr(archives, "ArchiveTree", Slow)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: Archive().image(path, "cat/1.png"), range(16)))
    assert opened == [path]
    assert set(found) == {(root / "cat" / "1.png").read_bytes()}
