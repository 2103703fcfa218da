"""The decoded cache: the pixels that every candidate sees, made once, whole or not there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from torchstone.core.contracts import ImageSet
from torchstone.core.errors import DataError, StorageError
from torchstone.core.values import Catalog, Split
from torchstone.data import cache
from torchstone.data.cache import CachedImages, open_images
from torchstone.data.catalog import read
from torchstone.data.preprocess import default_preprocess, prepare, stored
from torchstone.data.split import items_of, split

MakeFolder = Callable[..., Path]
PREPROCESS = default_preprocess(16, resize=21)


@pytest.fixture
def data(tmp_path: Path, make_folder: MakeFolder) -> tuple[Catalog, Split]:
    catalog = read(str(make_folder({"a": 12, "b": 20})), tmp_path / "data")
    return catalog, split(catalog, tmp_path / "data", seed=0)


def files_in(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir() if path.suffix != ".lock")


def test_it_holds_exactly_what_the_server_would_prepare(tmp_path: Path, data: tuple[Catalog, Split]) -> None:
    catalog, parts = data
    images: ImageSet = open_images(catalog, parts, "train", PREPROCESS, tmp_path / "cache")
    assert list(images.items) == items_of(parts, "train")
    assert len(images) == parts.sizes["train"]
    assert images.labels.dtype == np.int64
    for row, item in enumerate(images.items):
        content = images.encoded(row)
        assert content == (Path(catalog.root) / item).read_bytes()
        np.testing.assert_array_equal(images.images(slice(row, row + 1))[0], prepare(content, PREPROCESS))
        np.testing.assert_array_equal(images.stored(np.array([row]))[0], stored(content, PREPROCESS, 20))
        assert catalog.classes[images.labels[row]] == item[0]


def test_rows_come_in_the_order_asked_for(tmp_path: Path, data: tuple[Catalog, Split]) -> None:
    images = open_images(*data, "train", PREPROCESS, tmp_path / "cache")
    everything = images.images(slice(None))
    assert everything.shape == (len(images), 16, 16, 3)
    assert everything.flags.c_contiguous
    rows = np.array([5, 0, 3, 3])
    np.testing.assert_array_equal(images.images(rows), everything[rows])
    np.testing.assert_array_equal(images.images(slice(2, 9, 3)), everything[2:9:3])


def test_all_parts_and_models_share_one_file(tmp_path: Path, data: tuple[Catalog, Split]) -> None:
    place = tmp_path / "cache"
    open_images(*data, "train", PREPROCESS, place)
    (name,) = files_in(place)
    written = (place / name).stat().st_mtime_ns
    other = PREPROCESS.model_copy(update={"mean": (0.1, 0.2, 0.3), "std": (1.0, 1.0, 1.0), "channels": 1})
    for part in ("val", "calib", "test"):
        open_images(*data, part, other, place)
    assert files_in(place) == [name]
    assert (place / name).stat().st_mtime_ns == written
    open_images(*data, "test", PREPROCESS.model_copy(update={"interpolation": "bicubic"}), place)
    assert len(files_in(place)) == 2


def test_other_names_for_the_same_images_do_not_mix_them_up(tmp_path: Path, make_folder: MakeFolder) -> None:
    first = read(str(make_folder({"a": 4, "b": 4}, tmp_path / "first")), tmp_path / "1")
    renamed = make_folder({"a": 4, "b": 4}, tmp_path / "second")
    (renamed / "a" / "0.png").rename(renamed / "a" / "9.png")
    second = read(str(renamed), tmp_path / "2")
    assert first.fingerprint == second.fingerprint
    open_images(first, None, None, PREPROCESS, tmp_path / "cache")
    images = open_images(second, None, None, PREPROCESS, tmp_path / "cache")
    for row in range(len(images)):
        np.testing.assert_array_equal(images.images(slice(row, row + 1))[0], prepare(images.encoded(row), PREPROCESS))


def test_a_whole_catalog_without_a_split(tmp_path: Path) -> None:
    catalog = read("digits", tmp_path)
    images = open_images(catalog, None, None, default_preprocess(8), tmp_path / "cache")
    assert len(images) == 1797
    assert images.items[0] == "0000.png"
    from sklearn.datasets import load_digits

    expected = load_digits(return_X_y=True)[0].reshape(-1, 8, 8) * (255 / 16)
    np.testing.assert_allclose(images.images(slice(None))[..., 0], expected, atol=0.5)


def test_it_cannot_be_written_to(tmp_path: Path, data: tuple[Catalog, Split]) -> None:
    images = open_images(*data, "val", PREPROCESS, tmp_path / "cache")
    assert isinstance(images, CachedImages)
    with pytest.raises(ValueError, match="read-only"):
        images._pixels[0] = 0


def test_a_cut_off_cache_is_made_again(tmp_path: Path, data: tuple[Catalog, Split]) -> None:
    place = tmp_path / "cache"
    before = open_images(*data, "train", PREPROCESS, place).images(slice(None))
    (name,) = files_in(place)
    os.truncate(place / name, 1000)
    np.testing.assert_array_equal(open_images(*data, "train", PREPROCESS, place).images(slice(None)), before)


def test_an_image_that_changed_since_it_was_read_is_refused(
    tmp_path: Path, data: tuple[Catalog, Split], photo_bytes: bytes
) -> None:
    catalog, parts = data
    (Path(catalog.root) / "b" / "3.png").write_bytes(photo_bytes)
    with pytest.raises(DataError, match=r"'b/3.png' .* its pixels differ"):
        open_images(catalog, parts, "train", PREPROCESS, tmp_path / "cache")
    (Path(catalog.root) / "b" / "3.png").unlink()
    with pytest.raises(DataError, match=r"'b/3.png' .* No such file") as caught:
        open_images(catalog, parts, "train", PREPROCESS, tmp_path / "cache")
    assert caught.value.hint
    assert files_in(tmp_path / "cache") == []


def test_a_disk_that_fills_up_is_a_storage_error_and_leaves_nothing(
    tmp_path: Path, data: tuple[Catalog, Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "cache"
    open_images(*data, "train", PREPROCESS, place)
    (name,) = files_in(place)
    (place / name).rename(tmp_path / "aside")
    # A device of the kernel on which every write fails as on a full disk.
    (place / name).with_suffix(".partial").symlink_to("/dev/full")
    with pytest.raises(StorageError, match=r"the disk is full at '.*partial'"):
        open_images(*data, "train", PREPROCESS, place)
    assert files_in(place) == []


def test_too_small_a_disk_is_noticed_before_the_work(
    tmp_path: Path, data: tuple[Catalog, Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = cache.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: usage._replace(free=10_000))
    with pytest.raises(StorageError, match=r"need 0 MB .* 0 MB are free"):
        open_images(*data, "train", PREPROCESS, tmp_path / "cache")
    assert files_in(tmp_path / "cache") == []


def test_two_processes_decode_once(tmp_path: Path, data: tuple[Catalog, Split]) -> None:
    code = (
        "import sys; from pathlib import Path; from torchstone.core.run import Run; "
        "from torchstone.data import cache; from torchstone.data.preprocess import default_preprocess; "
        "build = cache._build; "
        "cache._build = lambda *a: (print('built'), build(*a)); "
        f"run = Run(Path({str(tmp_path)!r})); "
        "print(len(cache.open_images(run.catalog(), run.split(), 'train', default_preprocess(16), run.root / 'c')))"
    )
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = [process.communicate(timeout=60)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert sum(text.count("built") for text in printed) == 1
    assert [text.split()[-1] for text in printed] == [str(data[1].sizes["train"])] * 2
