"""Which files become which images, labels and parts; and what is refused before anything is decoded."""

from __future__ import annotations

import gzip
import os
import struct
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from torchstone.core.contracts import Listing
from torchstone.core.errors import DataError
from torchstone.core.registry import readers
from torchstone.data.catalog import settled
from torchstone.data.preprocess import decode, default_preprocess
from torchstone.data.readers import mnist_idx
from torchstone.data.readers.digits import Digits
from torchstone.data.readers.folder import Folder
from torchstone.data.readers.mnist_idx import MnistIdx
from torchstone.data.sources import find_reader, source_digest, trees
from torchstone.data.sources.trees import natural

MakeFolder = Callable[..., Path]


WIDE = f"t10k/{'9' * 5000}.png"
"""Python refuses to convert so many digits."""


def parts_of(listing: Listing) -> dict[str, str | None]:
    """First folder of the path → part."""
    return {path.split("/")[0]: part for path, part in zip(listing.paths, listing.parts, strict=True)}


class TestFolder:
    def test_class_folders_in_natural_order(self, make_folder: MakeFolder) -> None:
        root = make_folder({"10": 2, "9": 3, "apple": 1, "Zebra": 1})
        listing = Folder().listing(str(root))
        assert listing.classes == ("9", "10", "apple", "Zebra")
        assert [listing.classes[label] for label in listing.labels] == ["9"] * 3 + ["10"] * 2 + ["apple", "Zebra"]
        assert listing.paths[0] == "9/0.png"
        assert set(listing.parts) == {None}
        assert Folder().image(str(root), "9/0.png") == (root / "9/0.png").read_bytes()

    @pytest.mark.parametrize("held_out", ["val", "valid", "validation", "test", "Testing"])
    def test_the_only_held_out_folder_is_the_test_part(self, make_folder: MakeFolder, held_out: str) -> None:
        root = make_folder({"train/a": 3, "train/b": 3, f"{held_out}/a": 1, f"{held_out}/b": 1})
        listing = settled(Folder().listing(str(root)))
        assert parts_of(listing) == {"train": "train", held_out: "test"}
        assert listing.classes == ("a", "b")
        noted = [one.message for one in listing.findings if "2 images of its val are the test part" in one.message]
        assert len(noted) == (0 if held_out.lower().startswith("test") else 1)

    def test_val_and_test_keep_their_names_where_both_are_there(self, make_folder: MakeFolder) -> None:
        root = make_folder({f"{part}/{name}": 2 for part in ("train", "val", "test") for name in "ab"})
        listing = settled(Folder().listing(str(root)))
        assert parts_of(listing) == {"train": "train", "val": "val", "test": "test"}
        assert not listing.findings

    @pytest.mark.parametrize("part", ["train", "test"])
    def test_one_part_alone_is_no_split(self, make_folder: MakeFolder, part: str) -> None:
        root = make_folder({f"{part}/a": 2, f"{part}/b": 2})
        assert parts_of(settled(Folder().listing(str(root)))) == {part: None}

    def test_a_class_may_be_called_train(self, make_folder: MakeFolder) -> None:
        listing = Folder().listing(str(make_folder({"car": 2, "train": 2})))
        assert listing.classes == ("car", "train")

    def test_what_is_no_image_is_counted_and_a_few_are_named(self, make_folder: MakeFolder) -> None:
        root = make_folder({"a": 2, "b": 2})
        for name in ("a/notes.txt", "a/labels.csv", "README.md", "b/model.pt", ".hidden.png", "a/.DS_Store"):
            (root / name).touch()
        (root / "b" / "directory.jpg").mkdir()
        (root / "__MACOSX" / "a").mkdir(parents=True)
        os.mkfifo(root / "a" / "pipe.png")
        (finding,) = Folder().listing(str(root)).findings
        assert finding.check == "ignored"
        assert set(finding.items) == {
            "a/labels.csv", "a/notes.txt", "a/pipe.png", "b/directory.jpg", "b/model.pt", "README.md",
        }  # fmt: skip
        assert finding.evidence == {"files": 6}
        assert "6 files" in finding.message
        assert "3 more" in finding.message

    def test_folders_within_a_class_belong_to_it(self, make_folder: MakeFolder) -> None:
        listing = Folder().listing(str(make_folder({"a/2023": 2, "a/2024": 1, "b": 1})))
        assert listing.classes == ("a", "b")
        assert list(listing.labels) == [0, 0, 0, 1]

    def test_links_that_lead_round_in_circles_end(self, make_folder: MakeFolder) -> None:
        root = make_folder({"a/deep": 2, "b": 1})
        (root / "a" / "deep" / "up").symlink_to(root / "a")
        (root / "a" / "self").symlink_to(root / "a" / "self")
        (root / "b" / "all").symlink_to(root)
        listing = Folder().listing(str(root))
        assert sum(path.startswith("a/") for path in listing.paths) == 2
        assert len(listing.paths) == len(set(listing.paths))

    def test_a_name_that_is_not_valid_utf8_is_ignored_and_reported(self, make_folder: MakeFolder) -> None:
        root = make_folder({"a": 2, "b": 1})
        (root / "a" / "1.png").rename(root / "a" / os.fsdecode(b"\xff.png"))
        (root / "a" / os.fsdecode(b"\xfe")).mkdir()
        listing = Folder().listing(str(root))
        assert list(listing.paths) == ["a/0.png", "b/0.png"]
        assert listing.findings[0].items == ("a/\\xfe", "a/\\xff.png")
        listing.findings[0].model_dump_json()

    @pytest.mark.parametrize(
        ("counts", "reason"),
        [
            ({}, "no images in class folders"),
            ({"": 3}, "no images in class folders; ignored there: 0.png"),
            ({"a": 3}, "only one class, 'a'"),
            ({"a": 3, "b": 0}, "no images of class 'b'"),
            ({"train/a": 2, "train/b": 2, "test/a": 1}, "'test' of .* has no images of class 'b'"),
            ({"train/a": 2, "train/b": 2, "test/a": 1, "test/b": 1, "test/c": 1}, "'train' of .* of class 'c'"),
            ({"train/a": 2, "train/b": 2, "val/A": 1, "val/b": 1}, "'train' of .* of class 'A'"),
        ],
        ids=["empty", "no-folders", "one-class", "empty-class", "lacking", "unknown", "case"],
    )
    def test_what_cannot_be_learned_from_is_refused(
        self, tmp_path: Path, make_folder: MakeFolder, counts: dict[str, int], reason: str
    ) -> None:
        (tmp_path / "images").mkdir()
        with pytest.raises(DataError, match=reason) as caught:
            Folder().listing(str(make_folder(counts, tmp_path / "images")))
        assert caught.value.hint

    def test_a_class_folder_may_have_a_wnid_that_a_file_names(self, make_folder: MakeFolder) -> None:
        wnids = ("n02012849", "n03126707", "n01440764")
        root = make_folder({f"{part}/{wnid}": 2 for part in ("train", "val") for wnid in wnids})
        (root / "LOC_synset_mapping.txt").write_text(
            "n01440764 tench, Tinca tinca\nn02012849 crane\nn03126707 crane\nn99999999 other\n"
        )
        listing = Folder().listing(str(root))
        assert listing.classes == ("tench", "crane (n02012849)", "crane (n03126707)")
        assert {path.split("/")[1]: label for path, label in zip(listing.paths, listing.labels, strict=True)} == {
            "n01440764": 0, "n02012849": 1, "n03126707": 2,
        }  # fmt: skip
        assert listing.findings == ()

    @pytest.mark.parametrize(
        ("file", "content"),
        [
            ("words.txt", "n1\tcat\nn2\tdog, hound\nn3\tbird\n"),
            ("classes.txt", "n1,cat\nn2,dog\n"),
            ("imagenet_class_index.json", '{"0": ["n1", "cat"], "1": ["n2", "dog"]}'),
        ],
    )
    def test_files_that_name_classes(self, make_folder: MakeFolder, file: str, content: str) -> None:
        root = make_folder({"n1": 1, "n2": 1})
        (root / file).write_text(content)
        assert Folder().listing(str(root)).classes == ("cat", "dog")

    def test_a_list_of_the_folders_gives_their_order(self, make_folder: MakeFolder) -> None:
        root = make_folder({"small": 1, "medium": 1, "large one": 1})
        (root / "classes.txt").write_text("small\nmedium\nlarge one\n")
        listing = Folder().listing(str(root))
        assert listing.classes == ("small", "medium", "large one")
        assert [listing.classes[label] for label in listing.labels] == ["large one", "medium", "small"]

    def test_a_folder_that_the_names_file_leaves_out_is_reported(self, make_folder: MakeFolder) -> None:
        root = make_folder({"n1": 1, "n2": 1})
        (root / "words.txt").write_text("n1 cat\n")
        listing = Folder().listing(str(root))
        assert listing.classes == ("cat", "n2")
        (finding,) = listing.findings
        assert finding.check == "names"
        assert finding.items == ("n2",)

    def test_a_file_that_names_other_things_is_no_names_file(self, make_folder: MakeFolder) -> None:
        root = make_folder({"a": 1, "b": 1})
        (root / "classes.txt").write_text("these are not\nthe folders\n")
        listing = Folder().listing(str(root))
        assert listing.classes == ("a", "b")
        assert listing.findings[0].items == ("classes.txt",)

    @pytest.mark.parametrize(
        ("file", "content"), [("classes.txt", b"\xff\xfe"), ("imagenet_class_index.json", b'{"0": 7}')]
    )
    def test_a_damaged_names_file_is_refused(self, make_folder: MakeFolder, file: str, content: bytes) -> None:
        root = make_folder({"a": 1, "b": 1})
        (root / file).write_bytes(content)
        with pytest.raises(DataError, match=file):
            Folder().listing(str(root))

    @pytest.mark.parametrize("path", ["../secret.png", "a/../../secret.png", "/etc/hostname"])
    def test_a_path_that_leads_out_is_not_opened(self, make_folder: MakeFolder, path: str) -> None:
        root = make_folder({"a": 1, "b": 1})
        (root.parent / "secret.png").touch()
        with pytest.raises(DataError, match="leads out"):
            Folder().image(str(root), path)

    def test_a_file_too_large_for_an_image_is_not_read(self, make_folder: MakeFolder) -> None:
        root = make_folder({"a": 1, "b": 1})
        with (root / "a" / "0.png").open("r+b") as file:
            file.truncate(trees.MAX_FILE + 1)  # a hole: it takes no room on the disk
        with pytest.raises(DataError, match="more than the 268 MB"):
            Folder().image(str(root), "a/0.png")

    def test_a_folder_too_high_is_told_what_to_name(self, make_folder: MakeFolder) -> None:
        root = make_folder({"set/cat": 1, "set/dog": 1})
        with pytest.raises(DataError, match="only one class, 'set'") as caught:
            Folder().listing(str(root))
        assert f"'{root}/set'" in str(caught.value.hint)

    def test_natural_order(self) -> None:
        assert natural("7" * 9999) < natural("8" * 9999)
        names = ["img10", "img9", "IMG1", "a", "10", "9", "09"]
        assert sorted(names, key=natural) == ["09", "9", "10", "a", "IMG1", "img9", "img10"]


class TestDigits:
    def test_the_pixels_are_those_of_scikit_learn(self) -> None:
        from sklearn.datasets import load_digits

        listing = Digits().listing("digits")
        assert len(listing.paths) == 1797
        assert listing.classes == tuple("0123456789")
        images, labels = load_digits(return_X_y=True)
        np.testing.assert_array_equal(listing.labels, labels)
        row = 1234
        pixels = decode(Digits().image("digits", listing.paths[row]), default_preprocess(8))
        np.testing.assert_allclose(pixels[..., 0] / 255, images[row].reshape(8, 8) / 16, atol=0.5 / 255)

    @pytest.mark.parametrize("path", ["1797.png", "-1.png", "0001.jpg", "", "../digits", WIDE])
    def test_a_path_that_names_no_image_is_refused(self, path: str) -> None:
        with pytest.raises(DataError, match="1,797 images"):
            Digits().image("digits", path)


def idx(array: np.ndarray) -> bytes:
    return (
        bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(np.uint8).tobytes()
    )


@pytest.fixture
def idx_folder(tmp_path: Path) -> Callable[..., Path]:
    """``idx_folder(train=12, t10k=5)``: idx files of that many random images."""

    def make(**counts: int) -> Path:
        random = np.random.default_rng(0)
        for stem, count in counts.items():
            images = random.integers(0, 255, (count, 28, 28))
            (tmp_path / f"{stem}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images), mtime=0))
            (tmp_path / f"{stem}-labels-idx1-ubyte").write_bytes(idx(np.arange(count) % 3 + 1))
        return tmp_path

    return make


class TestMnistIdx:
    def test_both_files_are_train_and_test(self, idx_folder: Callable[..., Path]) -> None:
        root = str(idx_folder(train=12, t10k=5))
        reader = MnistIdx()
        assert reader.accepts(root)
        listing = reader.listing(root)
        assert parts_of(listing) == {"train": "train", "t10k": "test"}
        assert listing.classes == ("1", "2", "3")
        assert list(listing.labels[:4]) == [0, 1, 2, 0]
        content = gzip.decompress((Path(root) / "t10k-images-idx3-ubyte.gz").read_bytes())
        pixels = decode(reader.image(root, "t10k/00002.png"), default_preprocess(28))
        assert pixels[..., 1].tobytes() == content[16 + 2 * 784 : 16 + 3 * 784]

    def test_the_test_files_alone_have_no_split(self, idx_folder: Callable[..., Path]) -> None:
        assert parts_of(MnistIdx().listing(str(idx_folder(t10k=5)))) == {"t10k": None}

    def test_a_file_that_decompresses_to_gigabytes_is_refused(
        self, idx_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(mnist_idx, "MAX_BYTES", 2**20)
        root = idx_folder(t10k=5)
        (root / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(np.zeros((2000, 28, 28)))))
        with pytest.raises(DataError, match="more than the 1 MB"):
            MnistIdx().listing(str(root))

    @pytest.mark.parametrize(
        ("name", "content", "reason"),
        [
            ("t10k-labels-idx1-ubyte", idx(np.zeros(4)), "5 t10k images and 4 t10k labels"),
            ("t10k-labels-idx1-ubyte", None, "no t10k labels"),
            ("t10k-labels-idx1-ubyte", b"", "starts with nothing"),
            ("t10k-labels-idx1-ubyte", b"<html>", "no idx file"),
            ("t10k-images-idx3-ubyte.gz", b"\x1f\x8b\x08", "damaged"),
            ("t10k-images-idx3-ubyte.gz", b"PK no gzip", "damaged"),
            (
                "t10k-images-idx3-ubyte.gz",
                gzip.compress(idx(np.zeros((5, 28, 28)))[:-1], mtime=0),
                "announces 5 × 28 × 28",
            ),
            (
                "t10k-images-idx3-ubyte.gz",
                gzip.compress(bytes((0, 0, 8, 3)) + struct.pack(">3I", *(3 * [2**32 - 1])) + bytes(8), mtime=0),
                "announces",
            ),
        ],
    )
    def test_damaged_files_are_refused(
        self, idx_folder: Callable[..., Path], name: str, content: bytes | None, reason: str
    ) -> None:
        root = idx_folder(t10k=5)
        (root / name).unlink()
        if content is not None:
            (root / name).write_bytes(content)
        with pytest.raises(DataError, match=reason) as caught:
            MnistIdx().listing(str(root))
        assert caught.value.hint

    @pytest.mark.parametrize("path", ["t10k/00005.png", "t10k/-1.png", "t10k/x.png", "../t10k.png", "", WIDE])
    def test_a_path_that_names_no_image_is_refused(self, idx_folder: Callable[..., Path], path: str) -> None:
        with pytest.raises(DataError):
            MnistIdx().image(str(idx_folder(t10k=5)), path)

    def test_a_file_that_changed_is_read_again(self, idx_folder: Callable[..., Path]) -> None:
        root, reader = idx_folder(t10k=5), MnistIdx()
        before = reader.image(str(root), "t10k/00000.png")
        (root / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(np.full((6, 28, 28), 7))))
        assert reader.image(str(root), "t10k/00000.png") != before
        with pytest.raises(DataError, match="6 t10k images and 5 t10k labels"):
            reader.listing(str(root))

    def test_threads_that_ask_at_once_decompress_once(
        self, idx_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        root = str(idx_folder(t10k=5))
        opened: list[Path] = []

        def slow(path: Path) -> gzip.GzipFile:
            opened.append(path)
            time.sleep(0.05)
            return gzip.GzipFile(path)

        monkeypatch.setattr(mnist_idx.gzip, "open", slow)
        with ThreadPoolExecutor(8) as pool:
            found = set(pool.map(lambda _: MnistIdx().image(root, "t10k/00002.png"), range(16)))
        assert len(opened) == len(found) == 1

    def test_the_real_files(self, shared: Callable[[str], Path]) -> None:
        listing = MnistIdx().listing(str(shared("mnist_t10k")))
        assert np.bincount(listing.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


class TestFindReader:
    def test_each_source_finds_its_reader(self, make_folder: MakeFolder, idx_folder: Callable[..., Path]) -> None:
        assert find_reader("digits") == ("digits", "digits")
        root = make_folder({"a": 1, "b": 1})
        assert find_reader(str(root)) == (str(root), "folder")
        assert find_reader(str(idx_folder(t10k=3))) == (str(root.parent), "mnist_idx")

    def test_a_relative_path_is_made_absolute(self, make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
        root = make_folder({"a": 1, "b": 1})
        monkeypatch.chdir(root.parent)
        assert find_reader("images/") == (str(root), "folder")

    def test_the_reserved_word_comes_before_a_folder_of_that_name(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "digits").mkdir()
        monkeypatch.chdir(tmp_path)
        assert find_reader("digits") == ("digits", "digits")
        assert find_reader("./digits") == (str(tmp_path / "digits"), "folder")

    def test_a_misspelt_source_is_corrected(self, make_folder: MakeFolder) -> None:
        root = make_folder({"a": 1})
        with pytest.raises(DataError, match="does not exist") as caught:
            find_reader(str(root.parent / "imges"))
        assert caught.value.hint == f"did you mean '{root}'?"
        with pytest.raises(DataError) as caught:
            find_reader("digit")
        assert caught.value.hint == "did you mean 'digits'?"

    def test_an_unknown_source_is_told_what_every_reader_understands(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="does not exist") as caught:
            find_reader(str(tmp_path / "nothing" / "here"))
        hint = str(caught.value.hint)
        assert hint.startswith("understood: a folder of class folders, ")
        assert all(readers.get(name).understands in hint for name in readers.names())
        (tmp_path / "images.7z").write_bytes(b"7z")
        with pytest.raises(DataError, match="of no kind that is read") as caught:
            find_reader(str(tmp_path / "images.7z"))
        assert "unpack" in str(caught.value.hint)

    def test_every_reader_refuses_a_source_that_is_not_there(self) -> None:
        assert not any(readers.get(name).accepts("/nothing/here") for name in readers.names())


@pytest.mark.parametrize("name", readers.names())
class TestEveryReader:
    def test_it_refuses_an_empty_folder(self, tmp_path: Path, name: str) -> None:
        reader = readers.get(name)
        if reader.accepts(str(tmp_path)):
            with pytest.raises(DataError) as caught:
                reader.listing(str(tmp_path))
            assert caught.value.hint

    @pytest.mark.parametrize("content", [b"", b"\0" * 600, b"PK\x03\x04 and nothing more", b"not at all"])
    def test_it_refuses_a_file_of_another_kind(self, tmp_path: Path, name: str, content: bytes) -> None:
        file = tmp_path / "file.dat"
        file.write_bytes(content)
        reader = readers.get(name)
        with pytest.raises(DataError) as caught:
            if not reader.accepts(str(file)):
                raise DataError("not accepted", hint="another reader may take it")
            reader.listing(str(file))
        assert caught.value.hint

    def test_it_says_what_it_understands_in_a_phrase(self, name: str) -> None:
        understands = readers.get(name).understands
        assert understands
        assert not understands.endswith(".")


class TestSourceDigest:
    def test_it_changes_with_a_file_and_with_a_name(self, make_folder: MakeFolder) -> None:
        root = make_folder({"a": 2, "b": 2})
        before = source_digest(str(root))
        assert source_digest(str(root)) == before
        os.utime(root / "a" / "0.png", ns=(1, 1))
        touched = source_digest(str(root))
        assert touched != before
        (root / "a" / "0.png").rename(root / "a" / "7.png")
        assert source_digest(str(root)) != touched
