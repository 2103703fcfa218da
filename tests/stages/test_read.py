from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from torchstone.config import Settings
from torchstone.core import tables
from torchstone.core.errors import ArtifactError, DataError
from torchstone.stages import read

RANDOM = np.random.default_rng(1)


def add(place: Path, number: int) -> None:
    place.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RANDOM.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(place / f"{number}.png")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    for name in ("cat", "dog"):
        for number in range(20):
            add(tmp_path / "images" / name, number)
    return Settings(data=str(tmp_path / "images"), runs=tmp_path / "runs")


def test_the_same_images_are_read_once(settings: Settings) -> None:
    first = read.read(settings)
    written = first.catalog.table.stat().st_mtime_ns
    again = read.read(settings)
    assert again.split == first.split
    assert again.catalog.table.stat().st_mtime_ns == written


def test_a_new_image_is_noticed(settings: Settings) -> None:
    first = read.read(settings)
    add(Path(settings.data) / "cat", 99)
    again = read.read(settings)
    assert again.catalog.images == first.catalog.images + 1
    assert again.catalog.fingerprint != first.catalog.fingerprint


def test_a_changed_image_is_noticed(settings: Settings) -> None:
    first = read.read(settings)
    path = Path(settings.data) / "dog" / "3.png"
    before = path.stat().st_mtime_ns
    add(Path(settings.data) / "dog", 3)
    os.utime(path, ns=(before + 1, before + 1))
    assert read.read(settings).catalog.fingerprint != first.catalog.fingerprint


def test_another_seed_is_another_run(settings: Settings) -> None:
    other = settings.model_copy(update={"seed": 1})
    assert other.run.root != settings.run.root
    assert read.read(other).split.fingerprint != read.read(settings).split.fingerprint


def test_another_budget_is_the_same_run(settings: Settings) -> None:
    assert settings.model_copy(update={"max_drop": 0.5, "chain": ("onnx",)}).run.root == settings.run.root


def test_what_cannot_be_split_leaves_nothing_behind(settings: Settings) -> None:
    for number in range(1, 20):
        (Path(settings.data) / "dog" / f"{number}.png").unlink()
    with pytest.raises(DataError, match="dog"):
        read.read(settings)
    assert not settings.run.data.exists()


def test_a_source_that_grew_keeps_every_image_in_its_part(settings: Settings) -> None:
    before = parts_of(read.read(settings))
    for number in range(100, 120):
        add(Path(settings.data) / "cat", number)
    after = parts_of(read.read(settings))
    assert before.items() <= after.items()
    assert len(after) == len(before) + 20


def test_a_source_that_cannot_be_split_any_more_leaves_the_earlier_split(settings: Settings) -> None:
    before = parts_of(read.read(settings))
    for number in range(1, 20):
        (Path(settings.data) / "dog" / f"{number}.png").unlink()
    with pytest.raises(DataError, match="dog"):
        read.read(settings)
    assert parts_of(read.opened(settings.run)) == before
    assert [path.name for path in settings.run.root.iterdir() if path.name.startswith("data")] == ["data"]


def test_a_named_split_is_gone_on_from(settings: Settings, tmp_path: Path) -> None:
    before = read.read(settings)
    other = settings.model_copy(update={"seed": 5, "previous_split": settings.run.root})
    assert other.run.root != settings.run.root
    after = read.read(other)
    assert after.split.fingerprint == before.split.fingerprint
    nowhere = settings.model_copy(update={"previous_split": tmp_path / "nowhere"})
    with pytest.raises(ArtifactError, match="there is no split"):
        read.read(nowhere)
    assert not nowhere.run.root.exists()


def parts_of(data: read.Data) -> dict[str, str]:
    return dict(tables.read(data.split.table)[0].select("item", "part").iter_rows())


def test_notes_are_said_in_one_line_with_the_command_that_shows_them(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    read.read(settings)
    (told,) = [line for line in capsys.readouterr().err.splitlines() if "torchstone audit" in line]
    assert told == (f"1 note (what is in the pictures was not compared): torchstone audit {settings.data} shows it")
    read.read(settings)
    assert "note" not in capsys.readouterr().err, "once is enough"


def test_a_val_that_becomes_the_test_part_is_told(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in ("train", "val"):
        (tmp_path / "own" / part).mkdir(parents=True)
    images = Path(settings.data)
    for name in ("cat", "dog"):
        (images / name).rename(tmp_path / "own" / "train" / name)
        add(tmp_path / "own" / "val" / name, 0)
    data = read.read(settings.model_copy(update={"data": str(tmp_path / "own")}))
    assert data.split.sizes["test"] == 2
    told = capsys.readouterr().err
    assert "2 images of its val are the test part here" in told
    assert "test/ beside train/ and val/" in told
