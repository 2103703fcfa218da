"""CIFAR's binary files, made here record by record."""

from __future__ import annotations

import pickle
import tarfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from torchstone.core.errors import DataError
from torchstone.data.catalog import settled
from torchstone.data.preprocess import decode, default_preprocess
from torchstone.data.readers.cifar import Cifar
from torchstone.data.sources import find_reader, source_digest, trees

NAMES = ("airplane", "automobile", "bird")


def records(count: int, label_bytes: int, seed: int) -> tuple[np.ndarray, bytes]:
    """uint8[n, 32, 32, 3] and the file that holds them; labels go round, a coarse one is always 9."""
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    labels = np.full((count, label_bytes), 9, np.uint8)
    labels[:, -1] = np.arange(count) % len(NAMES)
    return pixels, np.hstack([labels, pixels.transpose(0, 3, 1, 2).reshape(count, -1)]).tobytes()


@pytest.fixture
def cifar10(tmp_path: Path) -> Callable[[], tuple[Path, dict[str, np.ndarray]]]:
    def make() -> tuple[Path, dict[str, np.ndarray]]:
        root = tmp_path / "cifar-10-batches-bin"
        root.mkdir()
        (root / "batches.meta.txt").write_text("\n".join(NAMES) + "\n\n")
        pixels = {}
        for seed, (name, count) in enumerate({"data_batch_1": 7, "data_batch_2": 5, "test_batch": 4}.items()):
            pixels[name], content = records(count, 1, seed)
            (root / f"{name}.bin").write_bytes(content)
        return root, pixels

    return make


def test_cifar10_in_a_folder_and_as_it_comes(tmp_path: Path, cifar10: Callable) -> None:
    root, pixels = cifar10()
    packed = tmp_path / "cifar-10-binary.tar.gz"
    with tarfile.open(packed, "w:gz") as archive:
        archive.add(root, root.name)
    for source in (str(root), str(packed)):
        assert find_reader(source) == (source, "cifar")
        listing = Cifar().listing(source)
        assert listing.classes == NAMES
        assert list(listing.labels) == [row % 3 for count in (7, 5, 4) for row in range(count)]
        assert list(listing.parts) == ["train"] * 12 + ["test"] * 4
        for path in listing.paths:
            batch, _, name = path.partition("/")
            decoded = decode(Cifar().image(source, path), default_preprocess(32))
            np.testing.assert_array_equal(decoded, pixels[batch][int(name.removesuffix(".png"))])


def test_cifar100_has_its_fine_labels(tmp_path: Path) -> None:
    (tmp_path / "fine_label_names.txt").write_text("\n".join(NAMES))
    (tmp_path / "coarse_label_names.txt").write_text("animals\n" * 20)
    pixels, content = records(6, 2, 0)
    (tmp_path / "train.bin").write_bytes(content)
    (tmp_path / "test.bin").write_bytes(records(3, 2, 1)[1])
    listing = Cifar().listing(str(tmp_path))
    assert listing.classes == NAMES
    assert list(listing.labels) == [0, 1, 2] * 3
    assert list(listing.parts) == ["train"] * 6 + ["test"] * 3
    decoded = decode(Cifar().image(str(tmp_path), "train/00004.png"), default_preprocess(32))
    np.testing.assert_array_equal(decoded, pixels[4])


def test_a_missing_test_batch_leaves_no_split(cifar10: Callable) -> None:
    root, _ = cifar10()
    (root / "test_batch.bin").unlink()
    listing = settled(Cifar().listing(str(root)))
    assert set(listing.parts) == {None}
    assert len(listing.paths) == 12


def test_a_batch_that_changed_is_read_again(cifar10: Callable) -> None:
    root, _ = cifar10()
    before = source_digest(str(root))
    image = Cifar().image(str(root), "test_batch/00000.png")
    (root / "test_batch.bin").write_bytes(records(5, 1, 99)[1])
    assert Cifar().image(str(root), "test_batch/00000.png") != image
    assert source_digest(str(root)) != before


def test_the_pickles_are_not_opened(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "opened",))

    for name in ("data_batch_1", "batches.meta"):
        (tmp_path / name).write_bytes(pickle.dumps(Trap()))
    assert find_reader(str(tmp_path))[1] == "cifar"
    with pytest.raises(DataError, match="pickles, which run code") as caught:
        Cifar().listing(str(tmp_path))
    assert "cifar-10-binary.tar.gz" in str(caught.value.hint)
    assert not (tmp_path / "opened").exists()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("data_batch_2.bin", b"", "0 bytes"),
        ("data_batch_2.bin", bytes(3072), "3,072 bytes, which is no number of records of 3,073"),
        ("data_batch_2.bin", b"\x07" + bytes(3072), "label 7, and 'batches.meta.txt' names 3 classes"),
        ("batches.meta.txt", b"\xff\xff", "not UTF-8"),
    ],
)
def test_damaged_files_are_refused(cifar10: Callable, name: str, content: bytes, reason: str) -> None:
    root, _ = cifar10()
    (root / name).write_bytes(content)
    with pytest.raises(DataError, match=reason) as caught:
        Cifar().listing(str(root))
    assert caught.value.hint


@pytest.mark.parametrize(
    "path", ["data_batch_1/00099.png", "data_batch_9/00000.png", "../x.png", "data_batch_1/-1.png"]
)
def test_a_path_that_names_no_image_is_refused(cifar10: Callable, path: str) -> None:
    root, _ = cifar10()
    with pytest.raises(DataError):
        Cifar().image(str(root), path)


def test_threads_that_ask_at_once_read_a_batch_once(cifar10: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    root, pixels = cifar10()
    read = trees.FolderTree.read
    opened: list[str] = []

    def slow(self: trees.FolderTree, path: str, limit: int = trees.MAX_FILE) -> bytes:
        opened.append(path)
        time.sleep(0.05)
        return read(self, path, limit)

    monkeypatch.setattr(trees.FolderTree, "read", slow)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: Cifar().image(str(root), f"data_batch_1/{n % 7:05d}.png"), range(24)))
    assert opened == ["data_batch_1.bin"]
    np.testing.assert_array_equal(decode(found[9], default_preprocess(32)), pixels["data_batch_1"][2])
