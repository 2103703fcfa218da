from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from torchstone.core.errors import ConfigError
from torchstone.data.augment import POLICIES, Augmenter, check_policy, identity, source_of, uniform, user_policy, warp
from torchstone.data.loader import batches

COUNT, SIDE, CROP = 32, 40, 32
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, SIDE, SIDE, 3), dtype=np.uint8)
ROWS = np.arange(COUNT)
SIZES = st.integers(3, COUNT)
"""Of batches."""

TOML = """
[[transform]]
name = "RandomResizedCrop"
size = "crop"
scale = [0.5, 1.0]
interpolation = "bicubic"

[[transform]]
name = "RandomApply"
p = 0.7
transforms = [{ name = "ColorJitter", brightness = 0.3, contrast = 0.3 }]
"""
PYTHON = """
import random
import numpy as np
import torch

def all_three(image):
    noise = torch.randint(0, 9, image.shape, dtype=torch.uint8)
    noise += np.random.randint(0, 9) + random.randrange(9)
    return image // 2 + noise

def to_float(image):
    return image / 255

def small(image):
    return image[:, :10, :10]

def broken(image):
    raise ZeroDivisionError("oh")
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Policies of a user's own, in TOML and in Python."""
    place = tmp_path_factory.mktemp("policies")
    (place / "own.toml").write_text(TOML)
    (place / "own.py").write_text(PYTHON)
    functions = {name: f"{place}/own.py:{name}" for name in ("all_three", "to_float", "small", "broken")}
    return {"toml": f"{place}/own.toml", **functions}


def every(own: dict[str, str]) -> list[str]:
    return [*POLICIES, own["toml"], own["all_three"]]


@given(order=st.permutations(range(COUNT)), epoch=st.integers(0, 50), seed=st.integers(0, 2**63 - 1), data=st.data())
@settings(max_examples=30)
def test_a_sample_is_changed_the_same_way_in_every_batch(
    order: list[int], epoch: int, seed: int, data: st.DataObject, own: dict[str, str]
) -> None:
    augment = Augmenter(data.draw(st.sampled_from(every(own))), CROP, seed, epoch)
    whole = augment(IMAGES, ROWS)
    shuffled = np.array(order)
    assert np.array_equal(augment(IMAGES[shuffled], shuffled), whole[shuffled])
    assert np.array_equal(augment(IMAGES[3:5], ROWS[3:5]), whole[3:5])


class Set:
    """Images for the loader (contracts.ImageSet)."""

    items = tuple(str(row) for row in ROWS)
    labels = np.zeros(COUNT, np.int64)

    def __len__(self) -> int:
        return COUNT

    def images(self, rows: Any) -> NDArray[np.uint8]:
        return IMAGES[rows, 4:36, 4:36]

    def stored(self, rows: Any) -> NDArray[np.uint8]:
        return IMAGES[rows]

    def encoded(self, row: int) -> bytes:
        return b""


@pytest.mark.parametrize("policy", [*POLICIES, "toml", "all_three"])
@given(seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 50), order=st.permutations(range(COUNT)), size=SIZES)
@settings(max_examples=2)
def test_any_number_of_workers_gives_the_same_pixels(
    policy: str, seed: int, epoch: int, order: list[int], size: int, own: dict[str, str]
) -> None:
    plan = [np.array(order[start : start + size]) for start in range(0, COUNT, size)]
    augment = Augmenter(own.get(policy, policy), CROP, seed, epoch)
    expected = augment(IMAGES, ROWS)
    for workers in (0, 1, 2):
        for batch, rows in zip(batches(Set(), plan, augment, workers=workers), plan, strict=True):
            assert np.array_equal(batch.rows, rows)
            assert np.array_equal(batch.pixels.numpy(), expected[rows]), workers


@pytest.mark.parametrize("policy", ["standard", "strong"])
def test_any_number_of_threads_gives_the_same_pixels(policy: str) -> None:
    """At a size at which torch shares an image out between threads."""
    large = np.random.default_rng(1).integers(0, 256, (3, 256, 256, 3), dtype=np.uint8)
    threads = torch.get_num_threads()
    found = []
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            found.append([Augmenter(policy, 224, 5, epoch)(large, ROWS[:3]) for epoch in range(3)])
            assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(threads)
    assert np.array_equal(*found)


def test_threads_side_by_side_do_not_mix_up_their_numbers(own: dict[str, str]) -> None:
    augment = Augmenter(own["all_three"], CROP, 5, 1)
    expected = augment(IMAGES, ROWS)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: augment(IMAGES, ROWS), range(8)):
            assert np.array_equal(found, expected)


@pytest.mark.parametrize("policy", ["strong", "all_three"])
def test_the_global_generators_stay_as_they_were(policy: str, own: dict[str, str]) -> None:
    def numbers() -> tuple[float, float, float]:
        return torch.rand(1).item(), float(np.random.rand()), random.random()

    def seed() -> None:
        torch.manual_seed(1)
        np.random.seed(1)
        random.seed(1)

    seed()
    expected = numbers()
    seed()
    Augmenter(own.get(policy, policy), CROP, 5, 1)(IMAGES, ROWS)
    assert numbers() == expected


def test_it_travels_to_other_processes(own: dict[str, str]) -> None:
    for policy in every(own):
        augment = Augmenter(policy, CROP, 5, 1)
        expected = augment(IMAGES, ROWS)
        content = pickle.dumps(augment)
        assert len(content) < 1000
        assert np.array_equal(pickle.loads(content)(IMAGES, ROWS), expected)


@pytest.mark.parametrize("policy", [name for name in POLICIES if name != "none"])
def test_epochs_seeds_and_samples_differ(policy: str) -> None:
    first = Augmenter(policy, CROP, 5, 0)(IMAGES, ROWS)
    assert not np.array_equal(first, Augmenter(policy, CROP, 5, 1)(IMAGES, ROWS))
    assert not np.array_equal(first, Augmenter(policy, CROP, 6, 0)(IMAGES, ROWS))
    same = Augmenter(policy, CROP, 5, 0)(IMAGES[:1].repeat(COUNT, axis=0), ROWS)
    assert len(np.unique(same.reshape(COUNT, -1), axis=0)) > COUNT // 2


def test_none_is_the_centre_crop() -> None:
    assert np.array_equal(Augmenter("none", CROP, 5, 0)(IMAGES, ROWS), IMAGES[:, 4:36, 4:36])


@pytest.mark.parametrize("policy", POLICIES)
def test_an_image_without_room_is_continued(policy: str) -> None:
    changed = Augmenter(policy, SIDE, 5, 0)(IMAGES, ROWS)
    assert changed.shape == IMAGES.shape
    assert changed.dtype == np.uint8


@pytest.fixture
def stored(photo: Image.Image) -> NDArray[np.uint8]:
    """uint8[8, 256, 256, 3]: windows of a photo."""
    pixels = np.asarray(photo)
    return np.stack([pixels[top : top + 256, 2 * top : 2 * top + 256] for top in range(0, 160, 20)])


def test_light_only_moves_pixels(stored: NDArray[np.uint8]) -> None:
    for row, changed in enumerate(Augmenter("light", 224, 5, 0)(stored, np.arange(8))):
        windows = np.lib.stride_tricks.sliding_window_view(stored[row], (224, 224, 3))[:, :, 0]
        assert any(np.array_equal(changed, windows[top, left]) for top in range(33) for left in range(33))


def test_medical_keeps_the_sides_and_the_colours(stored: NDArray[np.uint8]) -> None:
    """A picture whose left half is red and whose right half is blue stays so under 15 degrees."""
    halves = np.zeros((COUNT, 64, 64, 3), np.uint8)
    halves[:, :, :32, 0] = halves[:, :, 32:, 2] = 200
    changed = Augmenter("medical", 56, 5, 0)(halves, ROWS)
    assert (changed[:, 20:36, 2:10, 0] > 190).all()
    assert (changed[:, 20:36, -10:-2, 2] > 190).all()
    assert not changed[..., 1].any()
    mirrored = Augmenter("standard", 56, 5, 0)(halves, ROWS)[:, 28, 4, 2] > 100
    assert 0.2 < mirrored.mean() < 0.8


def test_standard_stays_within_its_ranges(stored: NDArray[np.uint8]) -> None:
    """Brightness by a fifth at most; what is seen is the picture, not its border."""
    grey = np.full((COUNT, 64, 64, 3), 100, np.uint8)
    changed = Augmenter("standard", 56, 5, 0)(grey, ROWS)
    assert changed.min() >= 79
    assert changed.max() <= 121
    assert len(np.unique(changed)) > 10
    assert (changed == changed[:, :1, :1]).all(), "a grey picture has neither hue nor border"


def nothing(n: int) -> dict[str, Any]:
    """Arguments of a warp that changes nothing."""
    return {"shift": np.zeros((2, n)), "degrees": np.zeros(n), "scale": np.ones(n), "flip": np.zeros(n, bool)}


def test_a_warp_by_nothing_is_the_centre_crop(stored: NDArray[np.uint8]) -> None:
    assert np.array_equal(warp.to_bytes(warp.warp(stored, **nothing(8), crop=224)), stored[:, 16:240, 16:240])


def test_a_warp_moves_turns_and_mirrors(stored: NDArray[np.uint8]) -> None:
    def warped(**changes: Any) -> NDArray[np.uint8]:
        return warp.to_bytes(warp.warp(stored, **{**nothing(8), **changes}, crop=224))

    moved = warped(shift=np.stack([np.full(8, 5.0), np.full(8, -9.0)]))
    assert np.array_equal(moved, stored[:, 21:245, 7:231])
    assert np.array_equal(warped(flip=np.ones(8, bool)), stored[:, 16:240, 16:240][:, :, ::-1])
    quarter = warped(degrees=np.full(8, 90.0)).astype(int)
    assert np.abs(quarter - np.rot90(stored[:, 16:240, 16:240], -1, axes=(1, 2))).max() <= 1  # clockwise
    beyond = warped(shift=np.full((2, 8), 26.0))
    assert np.array_equal(beyond, np.pad(stored, ((0, 0), (0, 20), (0, 20), (0, 0)), "reflect")[:, 42:266, 42:266])


def test_a_warp_agrees_with_pillow(stored: NDArray[np.uint8]) -> None:
    """Turned by 10 degrees and enlarged by 1.2, away from the border: the same to rounding."""
    changed = warp.to_bytes(
        warp.warp(stored, **{**nothing(8), "degrees": np.full(8, 10.0), "scale": np.full(8, 1.2)}, crop=224)
    )
    cos, sin, middle = np.cos(np.radians(10)) / 1.2, np.sin(np.radians(10)) / 1.2, 112
    matrix = (cos, sin, 128 - (cos + sin) * middle, -sin, cos, 128 - (cos - sin) * middle)
    for row in range(8):
        image = Image.fromarray(stored[row])
        theirs = image.transform((224, 224), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
        assert np.abs(changed[row].astype(int) - np.asarray(theirs))[8:-8, 8:-8].max() <= 2


def test_colours_are_those_of_the_filter_effects_module() -> None:
    """The standard's own special cases: no saturation is the luma, half a turn of the hue is its complement."""
    grey = warp.colour_matrices(np.zeros(1), np.zeros(1))[0]
    assert np.allclose(grey, np.tile(warp.LUMA, (3, 1)))
    assert np.allclose(warp.colour_matrices(np.zeros(2), np.ones(2)), np.eye(3))
    turned = warp.colour_matrices(np.array([180.0]), np.ones(1))[0]
    assert np.allclose(turned @ [1, 1, 1], 1)
    assert np.allclose(turned, 2 * np.tile(warp.LUMA, (3, 1)) - np.eye(3), atol=2e-3)


def test_hue_turns_towards_the_next_colour() -> None:
    """Red turned by 20 degrees becomes orange, as through HSV; by -20, towards magenta."""
    red = torch.tensor([200.0, 60.0, 60.0]).view(1, 3, 1, 1)
    one = np.ones(1)
    for degrees, stronger in ((20.0, 1), (-20.0, 2)):
        found = warp.recolour(red, hue=np.array([degrees]), saturation=one, value=one, contrast=one)[0, :, 0, 0]
        assert found[stronger] > found[3 - stronger] + 20
        assert found.argmax() == 0


def test_noise_has_its_deviation_and_erasing_its_area() -> None:
    planes = torch.full((4, 3, 100, 100), 127.0)
    noisy = warp.add_noise(planes, np.array([0.0, 0.01, 0.02, 0.05]), np.arange(4, dtype=np.uint64))
    assert noisy.std(dim=(1, 2, 3)).tolist() == pytest.approx([0, 2.55, 5.1, 12.75], rel=0.02)
    numbers = np.random.default_rng(0).random((4, 4))
    erased = warp.erase(planes, np.array([False, True, True, True]), numbers, np.arange(4, dtype=np.uint64))
    share = (erased != 127).any(1).float().mean((1, 2))
    assert share[0] == 0
    assert ((share[1:] > 0.015) & (share[1:] < 0.21)).all()


@pytest.mark.parametrize("draw", [0, 1, 2])
def test_draws_are_uniform_and_independent_between_neighbours(draw: int) -> None:
    numbers = uniform(3, 1, np.arange(200_000), draw=draw)
    counts, _ = np.histogram(numbers, bins=100, range=(0, 1))
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert ((counts - 2000) ** 2 / 2000).sum() < 160  # chi-square with 99 degrees: 1 in 10,000
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.01
    assert abs(np.corrcoef(numbers, uniform(3, 2, np.arange(200_000), draw=draw))[0, 1]) < 0.01
    assert abs(np.corrcoef(numbers, uniform(3, 1, np.arange(200_000), draw=draw + 1))[0, 1]) < 0.01


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("standart", "did you mean 'standard'"),
        ("nowhere.toml", "'nowhere.toml' does not exist"),
        ("nowhere.py:function", "does not exist"),
        ("own.py", "unknown augmentation policy"),
    ],
)
def test_a_policy_that_is_none(policy: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        check_policy(policy)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("to_float", r"must give torch.uint8\[3, height, width\], it gives torch.float32\[3, 40, 40\]"),
        ("small", "gives 10 × 10 pixels, and the network sees 32 × 32"),
        ("broken", "failed: ZeroDivisionError: oh"),
    ],
)
def test_what_is_wrong_with_a_function_is_said(name: str, expected: str, own: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=expected):
        Augmenter(own[name], CROP, 5, 1)(IMAGES, ROWS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[[transform]\n", "is not TOML"),
        ("", r"holds no \[\[transform\]\]"),
        ("policy = 1", "holds 'policy'"),
        ("transform = []", "lists of 1 to 100"),
        ("[[transform]]\np = 0.5", "has no name"),
        ('[[transform]]\nname = "RandomHorizontalFlop"', "did you mean 'RandomHorizontalFlip'"),
        ('[[transform]]\nname = "MixUp"', "give --set mixup=0.2 instead"),
        ('[[transform]]\nname = "Lambda"', "unknown transform 'Lambda'"),
        ('[[transform]]\nname = "RandomHorizontalFlip"\nprobability = 1', "refuses its arguments: got an unexpected"),
        ('[[transform]]\nname = "RandomHorizontalFlip"\np = 2', "refuses its arguments"),
        ('[[transform]]\nname = "Resize"\nsize = "crop"\ninterpolation = "best"', "refuses its arguments"),
        ('[[transform]]\nname = "RandomApply"\ntransforms = "all"', "lists of 1 to 100"),
        ("transform = " + "[" * 20_000, "is not TOML"),
        ("# " + "x" * 1_000_001, "is larger than the 1 MB"),
    ],
)
def test_what_is_wrong_with_a_toml_file_is_said(text: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(text)
    with pytest.raises(ConfigError, match=expected):
        Augmenter(f"{tmp_path}/own.toml", CROP, 5, 1)(IMAGES, ROWS)


def test_a_file_that_changed_is_another_policy(tmp_path: Path, touch: Callable[[Path, str], None]) -> None:
    path = tmp_path / "own.py"
    policy = f"{path}:change"
    touch(path, "def change(image):\n    return image\n")
    before, changed = identity(policy, source_of(policy)), Augmenter(policy, CROP, 5, 1)(IMAGES, ROWS)
    touch(path, "def change(image):\n    return 255 - image\n")
    assert identity(policy, source_of(policy)) != before
    assert np.array_equal(Augmenter(policy, CROP, 5, 1)(IMAGES, ROWS), 255 - changed)


@pytest.mark.parametrize("name", ["own.py:all_three", "own.toml"])
def test_a_training_keeps_the_policy_that_it_began_with(name: str, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(PYTHON)
    (tmp_path / "own.toml").write_text(TOML)
    policy = f"{tmp_path}/{name}"
    began = [Augmenter(policy, CROP, 5, epoch, source_of(policy)) for epoch in range(2)]
    expected = [augment(IMAGES, ROWS) for augment in began]
    (tmp_path / "own.py").write_text("def all_three(image):\n    return image\n")
    (tmp_path / "own.toml").unlink()
    user_policy.load.cache_clear()  # as in a process that has not loaded it yet
    assert np.array_equal([pickle.loads(pickle.dumps(augment))(IMAGES, ROWS) for augment in began], expected)


def test_a_policy_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        source_of(f"{tmp_path}/gone.toml")
    assert source_of("strong") is None
    assert identity("strong", None) != identity("light", None)


@pytest.fixture
def touch() -> Callable[[Path, str], None]:
    """Write a file whose time of change is later than that of the last one, however coarse the clock."""
    import os

    now = [1_000_000_000]

    def write(path: Path, text: str) -> None:
        path.write_text(text)
        now[0] += 10
        os.utime(path, (now[0], now[0]))

    return write
