"""The decoded cache: the pixels that every candidate sees, made once, whole or not there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from torchstone.config import Settings
from torchstone.core.contracts import ImageSet
from torchstone.core.errors import ConfigError, DataError, StorageError
from torchstone.core.values import Catalog, Preprocess, Split
from torchstone.data import cache
from torchstone.data.cache import open_images
from torchstone.data.catalog import read
from torchstone.data.images import Cached, CatalogImages, Streamed
from torchstone.data.preprocess import default_preprocess, prepare, stored, with_decoder
from torchstone.data.split import items_of, split
from torchstone.stages import read as read_stage

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
    written = (place / name).stat().st_ino
    other = PREPROCESS.model_copy(update={"mean": (0.1, 0.2, 0.3), "std": (1.0, 1.0, 1.0), "channels": 1})
    for part in ("val", "calib", "test"):
        open_images(*data, part, other, place)
    assert files_in(place) == [name]
    assert (place / name).stat().st_ino == written
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
    assert isinstance(images.pixels, Cached)
    with pytest.raises(ValueError, match="read-only"):
        images.pixels.array[0] = 0


def test_a_cut_off_cache_is_made_again(tmp_path: Path, data: tuple[Catalog, Split]) -> None:
    place = tmp_path / "cache"
    before = open_images(*data, "train", PREPROCESS, place).images(slice(None))
    (name,) = files_in(place)
    os.truncate(place / name, 1000)
    np.testing.assert_array_equal(open_images(*data, "train", PREPROCESS, place).images(slice(None)), before)


@pytest.mark.parametrize("gigabytes", [1.0, 0.0], ids=["cached", "streamed"])
def test_an_image_that_changed_since_it_was_read_is_refused(
    tmp_path: Path, data: tuple[Catalog, Split], photo: Image.Image, gigabytes: float
) -> None:
    catalog, _ = data
    place, path = tmp_path / "cache", Path(catalog.root) / "b" / "3.png"
    cache.set_limit(place, gigabytes)
    before = path.read_bytes()
    decoded = np.asarray(Image.open(path)).copy()
    decoded[0, 0, 0] ^= 1

    def everything() -> None:
        open_images(catalog, None, None, PREPROCESS, place).images(slice(None))

    Image.fromarray(decoded).save(path)
    with path.open("ab") as file:  # as long as it was, so that only its pixels tell
        file.write(bytes(max(0, len(before) - path.stat().st_size)))
    if path.stat().st_size == len(before):
        with pytest.raises(DataError, match=r"'b/3.png' .* its pixels differ"):
            everything()
    photo.save(path)
    with pytest.raises(DataError, match=r"'b/3.png' .* is not the image that was read before: it has [\d,]+ bytes"):
        everything()
    path.unlink()
    with pytest.raises(DataError, match=r"'b/3.png' .* No such file") as caught:
        everything()
    assert caught.value.hint
    assert files_in(place) == []
    path.write_bytes(before)
    everything()


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


def test_too_small_a_disk_is_noticed_before_the_work_which_goes_on_without(
    tmp_path: Path, data: tuple[Catalog, Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = cache.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: usage._replace(free=cache.RESERVE + 10_000))
    images = open_images(*data, "train", PREPROCESS, tmp_path / "cache")
    assert isinstance(images.pixels, Streamed)
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


def sized(size: int) -> Preprocess:
    return default_preprocess(size, resize=size)


def opened_at(place: Path, data: tuple[Catalog, Split], size: int) -> CatalogImages:
    """All 32 images at this size: 32 × 3 × size² bytes and a header."""
    return open_images(data[0], None, None, sized(size), place)


def sizes_in(place: Path) -> list[int]:
    return sorted(round(((path.stat().st_size - 128) / 96) ** 0.5) for path in place.glob("*.npy"))


def test_what_does_not_fit_is_decoded_on_demand_with_the_same_pixels(
    tmp_path: Path, data: tuple[Catalog, Split], capsys: pytest.CaptureFixture[str]
) -> None:
    cache.set_limit(tmp_path / "none", 0)
    streamed = open_images(*data, "train", PREPROCESS, tmp_path / "none")
    open_images(*data, "val", PREPROCESS, tmp_path / "none")
    assert capsys.readouterr().err.count("do not fit") == 1
    cached = open_images(*data, "train", PREPROCESS, tmp_path / "cache")
    assert isinstance(streamed.pixels, Streamed)
    assert isinstance(cached.pixels, Cached)
    assert files_in(tmp_path / "none") == []
    assert list(streamed.items) == list(cached.items)
    np.testing.assert_array_equal(streamed.labels, cached.labels)
    for rows in (slice(None), slice(3, 9, 2), np.array([7, 0, 0, 2])):
        np.testing.assert_array_equal(streamed.images(rows), cached.images(rows))
        np.testing.assert_array_equal(streamed.stored(rows), cached.stored(rows))
    assert streamed.encoded(4) == cached.encoded(4)


def test_the_least_recently_used_leave_and_never_one_in_use(tmp_path: Path, data: tuple[Catalog, Split]) -> None:
    place = tmp_path / "cache"
    cache.set_limit(place, 96 * (10**2 + 11**2 + 12**2 + 9) / 1e9)  # room for three of about this size
    for size in (10, 11, 12):
        opened_at(place, data, size)
    opened_at(place, data, 10)  # so that 11 is the one that was used least recently
    assert sizes_in(place) == [10, 11, 12]
    held = opened_at(place, data, 9)
    assert sizes_in(place) == [9, 10, 12]
    opened_at(place, data, 11)
    assert sizes_in(place) == [9, 10, 11]
    expected = held.images(slice(None))
    opened_at(place, data, 14)  # as large as two of them, and 9 is older than both
    assert sizes_in(place) == [9, 14]
    np.testing.assert_array_equal(held.images(slice(None)), expected)
    held_too = opened_at(place, data, 14)
    assert isinstance(opened_at(place, data, 13).pixels, Streamed)  # both are in use: nothing can go
    assert sizes_in(place) == [9, 14]
    del held, held_too
    assert isinstance(opened_at(place, data, 13).pixels, Cached)
    assert sizes_in(place) == [13, 14]


def test_nothing_leaves_for_what_would_not_fit_anyway(tmp_path: Path, data: tuple[Catalog, Split]) -> None:
    place = tmp_path / "cache"
    cache.set_limit(place, 96 * 300 / 1e9)
    opened_at(place, data, 12)
    assert isinstance(opened_at(place, data, 18).pixels, Streamed)
    assert sizes_in(place) == [12]


def test_an_array_that_another_process_has_open_stays(tmp_path: Path, data: tuple[Catalog, Split]) -> None:
    place = tmp_path / "cache"
    cache.set_limit(place, 96 * 300 / 1e9)
    opened_at(place, data, 12)
    code = (
        "import sys; from pathlib import Path; from torchstone.core.run import Run; from torchstone.data import cache; "
        "from torchstone.data.preprocess import default_preprocess as sized; "
        f"catalog = Run(Path({str(tmp_path)!r})).catalog(); "
        f"images = cache.open_images(catalog, None, None, sized(12, resize=12), Path({str(place)!r})); "
        "print('open', flush=True); sys.stdin.read(); print(images.images(slice(None)).sum())"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        assert isinstance(opened_at(place, data, 13).pixels, Streamed)
        answer, _ = process.communicate(timeout=60)
    assert int(answer) == opened_at(place, data, 12).images(slice(None)).sum()
    assert isinstance(opened_at(place, data, 13).pixels, Cached)


def test_what_a_killed_process_left_half_made_leaves_first(tmp_path: Path, data: tuple[Catalog, Split]) -> None:
    place = tmp_path / "cache"
    place.mkdir()
    cache.set_limit(place, 96 * 300 / 1e9)
    (place / "0123.partial").write_bytes(bytes(96 * 200))
    assert isinstance(opened_at(place, data, 12).pixels, Cached)
    assert not (place / "0123.partial").exists()


def test_the_limit_is_a_share_of_the_free_disk_unless_it_is_set(tmp_path: Path) -> None:
    free = cache.shutil.disk_usage(tmp_path).free
    assert 0.3 * free < cache.limit(tmp_path) < 0.7 * free
    cache.set_limit(tmp_path, 1.5)
    assert cache.limit(tmp_path) == 1_500_000_000
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="cache-gb"):
            cache.set_limit(tmp_path, wrong)


@pytest.mark.parametrize("gigabytes", [1.0, 0.0], ids=["cached", "streamed"])
def test_another_decoder_has_pixels_of_its_own(tmp_path: Path, photo: Image.Image, gigabytes: float) -> None:
    pytest.importorskip("simplejpeg")
    for name, box in (("a", (0, 0, 300, 200)), ("b", (100, 100, 500, 420))):
        (tmp_path / "images" / name).mkdir(parents=True)
        photo.crop(box).save(tmp_path / "images" / name / "0.jpg", quality=90)
    catalog = read(str(tmp_path / "images"), tmp_path / "data")
    exact = default_preprocess(64)
    quick = with_decoder(exact, "simplejpeg-torch")
    place = tmp_path / "cache"
    cache.set_limit(place, gigabytes)
    one, other = (open_images(catalog, None, None, each, place).images(slice(None)) for each in (exact, quick))
    assert not np.array_equal(one, other)
    assert np.abs(one.astype(int) - other).mean() < 2
    np.testing.assert_array_equal(other[1], prepare((Path(catalog.root) / "b" / "0.jpg").read_bytes(), quick))


def test_the_limit_is_a_setting_of_a_run(tmp_path: Path) -> None:
    options = {"data": "digits", "runs": tmp_path / "runs", "name": "digits"}
    for gigabytes, kind in ((0.0, Streamed), (1.0, Cached)):
        found = read_stage.read(Settings(**options, cache_gb=gigabytes))
        images = open_images(found.catalog, found.split, "val", PREPROCESS, found.run.cache)
        assert isinstance(images.pixels, kind)
    assert Settings(data="digits", cache_gb=3).run == Settings(data="digits").run
