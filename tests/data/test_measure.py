"""What the measures say of pictures of which that is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageFilter

from torchstone.data.measure import COLUMNS, luma_of, measure, sharpness


def named(luma: Image.Image) -> dict[str, float]:
    return dict(zip(COLUMNS, measure(luma).tolist(), strict=True))


@pytest.fixture(scope="module")
def grey(photo: Image.Image) -> Image.Image:
    return photo.convert("L")


def test_luma_weighs_the_colours_as_bt601_does() -> None:
    pixels = np.diag([255, 255, 255]).astype(np.uint8)[None]
    assert np.asarray(luma_of(pixels))[0].tolist() == [76, 150, 29]  # 255 times 0.299, 0.587 and 0.114


def test_the_histogram_of_a_ramp(grey_ramp: np.ndarray) -> None:
    found = named(Image.fromarray(grey_ramp))
    assert found["luma_mean"] == pytest.approx(0.5)
    assert found["luma_std"] == pytest.approx(np.std(grey_ramp / 255), abs=1e-6)
    assert found["entropy"] == pytest.approx(8)
    for percent in (1, 5, 95, 99):
        expected = np.percentile(grey_ramp, percent, method="inverted_cdf") / 255
        assert found[f"luma_p{percent}"] == pytest.approx(expected)


def test_a_picture_of_one_colour() -> None:
    found = named(Image.new("L", (30, 20), 51))
    assert [found[name] for name in COLUMNS[:5]] == pytest.approx([0.2] * 5)
    assert (found["luma_std"], found["sharpness"], found["entropy"]) == pytest.approx((0, 0, 0), abs=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (3, 3), (2000, 2)])
def test_a_picture_too_narrow_to_tell_has_no_sharpness(size: tuple[int, int]) -> None:
    assert sharpness(Image.radial_gradient("L").resize(size)) == 0


@given(arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40))))
@settings(max_examples=50)
def test_every_measure_is_in_its_range(pixels: np.ndarray) -> None:
    found = named(Image.fromarray(pixels))
    shares = [found[name] for name in COLUMNS[:6]]
    assert all(0 <= value <= 1 for value in shares)
    assert shares[1:5] == sorted(shares[1:5])
    assert 0 <= found["entropy"] <= 8 + 1e-6
    assert found["sharpness"] >= 0
    assert np.isfinite(list(found.values())).all()


@given(st.integers(1, 5), st.integers(1, 5))
@settings(max_examples=10)
def test_the_histogram_does_not_depend_on_the_size(down: int, across: int) -> None:
    tile = np.random.default_rng(0).integers(0, 256, (12, 9), np.uint8)
    first, repeated = measure(Image.fromarray(tile)), measure(Image.fromarray(np.tile(tile, (down, across))))
    histogram = [index for index, name in enumerate(COLUMNS) if name != "sharpness"]
    np.testing.assert_allclose(repeated[histogram], first[histogram], rtol=1e-6)


def test_a_sharp_photo_is_as_sharp_in_every_size(grey: Image.Image) -> None:
    whole = sharpness(grey)
    assert 0.4 < whole < 1.4
    for factor in (0.75, 0.5, 0.25):
        smaller = grey.resize((int(grey.width * factor), int(grey.height * factor)), Image.Resampling.BOX)
        assert sharpness(smaller) == pytest.approx(whole, rel=0.3)


def test_blur_takes_the_sharpness_away_and_little_contrast_does_not(grey: Image.Image) -> None:
    whole = sharpness(grey)
    values = [sharpness(grey.filter(ImageFilter.GaussianBlur(share * grey.height))) for share in (0.005, 0.01, 0.02)]
    assert whole > values[0] > values[1] > values[2]
    assert values[1] < 0.15
    assert sharpness(grey.point([100 + value // 4 for value in range(256)])) == pytest.approx(whole, rel=0.2)


def test_enlarging_makes_a_picture_soft(grey: Image.Image) -> None:
    small = grey.resize((64, 43), Image.Resampling.BOX)
    assert sharpness(small.resize((256, 172), Image.Resampling.BICUBIC)) < 0.2 < sharpness(small)


def test_noise_is_three() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (128, 128), np.uint8)
    assert sharpness(Image.fromarray(noise)) == pytest.approx(3, abs=0.2)
