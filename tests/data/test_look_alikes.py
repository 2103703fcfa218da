"""What the search itself takes for the same picture never stands in two parts, chains and crowds included."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from torchstone.audit import audit
from torchstone.core import tables
from torchstone.core.values import Catalog
from torchstone.data import catalog, findings
from torchstone.data.split import By, split
from torchstone.data.units import look_alikes


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    from sklearn.datasets import load_sample_images

    return [Image.fromarray(image) for image in load_sample_images().images]


def frames(photos: list[Image.Image], place: Path) -> Catalog:
    """Two classes of a camera that pans by little (a chain) and of pieces that share nothing, each with copies."""
    random = np.random.default_rng(0)
    for label, photo in zip(("temple", "flower"), photos, strict=True):
        folder = place / "images" / label
        folder.mkdir(parents=True)
        for number, left in enumerate(range(0, 160, 16)):
            photo.crop((left, 0, left + 256, 256)).resize((64, 64)).save(folder / f"pan{number}.png")
        for number in range(24):
            left, top = 64 * (number % 8) + 60, 300 + 40 * (number // 8)
            piece = photo.crop((left, top, left + 60, top + 40)).resize((60, 40))
            piece.save(folder / f"piece{number}.png")
            for copy in range(int(random.integers(0, 6))):
                piece.save(folder / f"piece{number}-{copy}.jpg", quality=40 + 10 * copy)
    return catalog.read(str(place / "images"), place)


@pytest.mark.parametrize("by", ["quota", pytest.param("hash", marks=pytest.mark.slow)])
def test_no_pair_stands_in_two_parts(photos: list[Image.Image], tmp_path: Path, by: By) -> None:
    made = frames(photos, tmp_path)
    table, _ = tables.read(made.table)
    one, other = look_alikes(made, table)
    assert len(one) >= 40
    pictures = table["picture"].to_numpy()
    assert (pictures[one] != pictures[other]).any()  # the column alone would let these be separated
    for seed in range(20):
        options = {"test_fraction": 0.3, "val_fraction": 0.3, "calib_fraction": 0.3}
        value = split(made, tmp_path, seed=seed, by=by, **options)  # pyright: ignore[reportArgumentType]
        of_item = dict(tables.read(value.table)[0].select("item", "part").iter_rows())
        parts = np.array([of_item[item] for item in table["item"].to_list()])
        assert (parts[one] == parts[other]).all()
        if seed == 0:
            assert not [found for found in audit(made, findings.load(tmp_path), value) if found.check == "leaks"]


def test_a_pair_across_parts_is_a_leak_though_its_pictures_have_two_numbers(
    photos: list[Image.Image], tmp_path: Path
) -> None:
    made = frames(photos, tmp_path)
    table, _ = tables.read(made.table)
    value = split(made, tmp_path, seed=0)
    one, other = look_alikes(made, table)
    pictures = table["picture"].to_numpy()
    apart = int(np.flatnonzero(pictures[one] != pictures[other])[0])
    parts = np.where(pictures == pictures[one[apart]], "test", "train")
    tables.write(value.table, tables.frame({"item": table["item"], "part": parts.tolist()}))
    (leak,) = [found for found in audit(made, [], value) if found.check == "leaks"]
    assert table["item"][int(other[apart])] in leak.items
    assert "train and test of the split" in leak.message


def test_a_crowd_is_named_when_it_is_read(photos: list[Image.Image], tmp_path: Path) -> None:
    """Augmented offline, twelve times: too many to be told from pictures of a kind."""
    random = np.random.default_rng(1)
    for label, photo in zip(("temple", "flower"), photos, strict=True):
        folder = tmp_path / "images" / label
        folder.mkdir(parents=True)
        for number in range(4):
            piece = photo.crop((150 * number, 100, 150 * number + 150, 250))
            for copy in range(12):
                left, top, right, bottom = random.integers(0, 8, 4)
                altered = piece.crop((left, top, 150 - right, 150 - bottom)).resize((96, 96))
                altered.save(folder / f"{number}-{copy}.jpg", quality=80)
    catalog.read(str(tmp_path / "images"), tmp_path)
    (crowd,) = [found for found in findings.load(tmp_path) if found.check == "crowds"]
    assert crowd.severity == "warning"
    assert "group" in (crowd.hint or "")
    assert len(crowd.items) == crowd.evidence["images"] >= 24
