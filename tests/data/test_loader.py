"""Batches come in the order of the plan, the same ones whoever makes them."""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from torchstone.core.contracts import ImageSet
from torchstone.core.errors import ConfigError, DataError, StorageError
from torchstone.core.values import Catalog
from torchstone.data import cache, loader
from torchstone.data.cache import open_images
from torchstone.data.catalog import read
from torchstone.data.loader import Cost, batches, choose_workers
from torchstone.data.preprocess import default_preprocess

PREPROCESS = default_preprocess(6, resize=8)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return read("digits", tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def images(digits: Catalog) -> ImageSet:
    return open_images(digits, None, None, PREPROCESS, digits.table.parent / "cache")


@pytest.fixture(scope="module")
def streamed(digits: Catalog) -> ImageSet:
    place = digits.table.parent / "none"
    cache.set_limit(place, 0)
    return open_images(digits, None, None, PREPROCESS, place)


class Flipped:
    """What an augmentation is: its result depends on the rows alone."""

    def __call__(self, stored: NDArray[np.uint8], rows: NDArray[np.intp]) -> NDArray[np.uint8]:
        turned = np.where((rows % 2 == 0)[:, None, None, None], stored[:, :, ::-1], stored)
        return turned[:, 1:-1, 1:-1]


def plan_of(length: int, seed: int = 0) -> list[NDArray[np.intp]]:
    """Batches of 1 to 40 rows, some of them twice."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 1797, rng.integers(1, 41)) for _ in range(length)]


def same(one: list[loader.Batch], other: list[loader.Batch]) -> bool:
    return len(one) == len(other) and all(
        np.array_equal(a.rows, b.rows) and torch.equal(a.pixels, b.pixels) and torch.equal(a.labels, b.labels)
        for a, b in zip(one, other, strict=True)
    )


@settings(max_examples=30)
@given(length=st.integers(0, 12), seed=st.integers(0, 1000), augmented=st.booleans())
def test_batches_are_the_images_of_the_plan(images: ImageSet, length: int, seed: int, augmented: bool) -> None:
    plan, make = plan_of(length, seed), Flipped() if augmented else None
    found = list(batches(images, plan, make, workers=0))
    assert len(found) == length
    for batch, rows in zip(found, plan, strict=True):
        np.testing.assert_array_equal(batch.rows, rows)
        expected = images.images(rows) if make is None else make(images.stored(rows), rows)
        np.testing.assert_array_equal(batch.pixels.numpy(), expected)
        np.testing.assert_array_equal(batch.labels.numpy(), images.labels[rows])
        assert (batch.pixels.dtype, batch.labels.dtype) == (torch.uint8, torch.int64)


@pytest.mark.parametrize("make", [None, Flipped()], ids=["plain", "augmented"])
def test_the_number_of_workers_changes_nothing(images: ImageSet, streamed: ImageSet, make: Any) -> None:
    plan = plan_of(17)
    alone = list(batches(images, plan, make, workers=0))
    for workers in (1, 2, 3):
        assert same(list(batches(images, plan, make, workers=workers)), alone)
    assert same(list(batches(images, plan, make)), alone)
    assert same(list(batches(streamed, plan, make, workers=0)), alone)
    assert same(list(batches(streamed, plan, make, workers=2)), alone)


def test_it_leaves_the_training_generator_alone(images: ImageSet) -> None:
    states = []
    for workers in (0, 2, None):
        torch.manual_seed(7)
        list(batches(images, plan_of(6), None, workers=workers))
        states.append(torch.get_rng_state())
    assert torch.equal(states[0], states[1])
    assert torch.equal(states[0], states[2])


def test_workers_end_when_the_consumer_stops(images: ImageSet) -> None:
    others = children()
    running = batches(images, plan_of(50), None, workers=2)
    assert isinstance(running, Generator)
    next(running)
    workers = children() - others
    assert len(workers) == 2
    running.close()
    deadline = time.monotonic() + 20
    while children() & workers and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not children() & workers


def children() -> set[int]:
    return set(map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_is_gone_is_a_users_error_from_a_worker_as_well(
    tmp_path: Path, workers: int, make_folder: Any
) -> None:
    catalog = read(str(make_folder({"a": 6, "b": 6})), tmp_path / "data")
    cache.set_limit(tmp_path / "cache", 0)
    images = open_images(catalog, None, None, PREPROCESS, tmp_path / "cache")
    (Path(catalog.root) / "b" / "2.png").unlink()
    with pytest.raises(DataError, match=r"^'b/2.png' .* could be read before") as caught:
        list(batches(images, [np.arange(6), np.arange(6, 12)], None, workers=workers))
    assert caught.value.hint == "put the file back, or start a new run"


def killed(stored: NDArray[np.uint8], rows: NDArray[np.intp]) -> NDArray[np.uint8]:
    os.kill(os.getpid(), 9)
    return stored


def test_a_worker_that_is_killed_is_no_traceback(images: ImageSet) -> None:
    with pytest.raises(StorageError, match="was killed"):
        list(batches(images, plan_of(3), killed, workers=1))


def test_an_error_of_our_own_stays_one(images: ImageSet) -> None:
    def broken(stored: NDArray[np.uint8], rows: NDArray[np.intp]) -> NDArray[np.uint8]:
        raise ZeroDivisionError("a bug")

    for workers in (0, 1):
        with pytest.raises(ZeroDivisionError, match="a bug"):
            list(batches(images, plan_of(3), broken, workers=workers))


def test_a_negative_number_of_workers_is_refused(images: ImageSet) -> None:
    with pytest.raises(ConfigError, match="workers = -1"):
        next(batches(images, plan_of(1), workers=-1))


def test_little_shared_memory_means_fewer_workers(
    images: ImageSet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = os.statvfs(loader.SHARED_MEMORY)
    plan = [np.arange(1000)] * 4  # 108 kB a batch, three of them for each worker
    room = {"f_bavail": 500_000 // place.f_frsize, "f_frsize": place.f_frsize}
    monkeypatch.setattr(loader.os, "statvfs", lambda _: type("Place", (), room))
    assert loader._fitting(4, images, plan) == 1
    assert "room for the batches of 1 of 4" in capsys.readouterr().err
    room["f_bavail"] = 0
    assert same(list(batches(images, plan, workers=2)), list(batches(images, plan, workers=0)))


def test_workers_are_started_only_where_they_help() -> None:
    cheap, slow = Cost(wall=0.002, cpu=0.002), Cost(wall=0.5, cpu=0.5)
    threads = Cost(wall=0.5, cpu=3.8)
    assert choose_workers(cheap, 10_000, 8, gpu=True) == 0
    assert choose_workers(slow, 3, 8, gpu=False) == 0  # over before a process has started
    assert choose_workers(slow, 100, 8, gpu=False) == 4
    assert choose_workers(slow, 100, 1, gpu=False) == 0
    assert choose_workers(threads, 100, 8, gpu=False) == 0  # they have used the cores already
    assert choose_workers(threads, 100, 8, gpu=True) == 7
    assert choose_workers(slow, 100, 1, gpu=True) == 1
