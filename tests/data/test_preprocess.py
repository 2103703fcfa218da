"""The one preprocessing: what is decoded and how, what is refused, and that the cache holds the same pixels."""

from __future__ import annotations

import struct
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from torchstone.core.errors import ConfigError, DataError
from torchstone.core.values import Preprocess
from torchstone.data.preprocess import (
    centre_crop,
    decode,
    decode_noting,
    default_preprocess,
    prepare,
    stored,
    stored_side,
)

PLAIN = default_preprocess(32)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_with_header(width: int, height: int) -> bytes:
    """A PNG file of a few bytes whose header announces any size."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


def test_an_rgb_image_is_decoded_as_it_is(photo: Image.Image) -> None:
    decoded = decode_noting(encoded(photo), PLAIN)
    np.testing.assert_array_equal(decoded.pixels, np.asarray(photo))
    assert decoded.pixels.dtype == np.uint8
    assert decoded.conversions == ()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_makes_the_image_upright(photo: Image.Image, orientation: int) -> None:
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Image.Transpose members that turn upright into this orientation
    small = photo.resize((64, 40))
    lying = small if orientation == 1 else small.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    content = encoded(lying, exif=exif)
    decoded = decode_noting(content, PLAIN)
    np.testing.assert_array_equal(decoded.pixels, np.asarray(small))
    assert decoded.conversions == (() if orientation == 1 else ("exif-rotated",))
    ignoring = PLAIN.model_copy(update={"exif_rotation": "ignore"})
    np.testing.assert_array_equal(decode(content, ignoring), np.asarray(lying))


def test_broken_exif_data_rotate_nothing(photo: Image.Image) -> None:
    content = encoded(photo, "JPEG", exif=b"Exif\x00\x00MM\x00*\x00\x00\xff\xff garbage")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decoded = decode_noting(content, PLAIN)
    assert decoded.pixels.shape == (427, 640, 3)
    assert decoded.conversions == ()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_become_white(mode: str) -> None:
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[:4, :, 3] = 255  # the upper half is black, the lower one transparent
    image = Image.fromarray(rgba).convert(mode)
    decoded = decode_noting(encoded(image), PLAIN)
    assert (decoded.pixels[:4] == 0).all()
    assert (decoded.pixels[4:] == 255).all()
    assert decoded.conversions == ("alpha",)


def test_half_transparent_is_half_way_to_white() -> None:
    image = Image.new("RGBA", (4, 4), (200, 0, 100, 128))
    pixel = decode(encoded(image), PLAIN)[0, 0]
    np.testing.assert_allclose(pixel, [227, 127, 177], atol=1)


def test_sixteen_bit_grey_is_scaled_not_clipped(grey_ramp: np.ndarray) -> None:
    image = Image.fromarray(grey_ramp.astype(np.uint16) * 257)
    decoded = decode_noting(encoded(image), PLAIN)
    np.testing.assert_array_equal(decoded.pixels, np.repeat(grey_ramp[..., None], 3, axis=2))
    assert decoded.conversions == ("16-bit",)


def test_sixteen_bit_colour_is_noted() -> None:
    """Pillow cannot write such a file, so it is put together here: one red pixel of 16 bits a channel."""
    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    row = b"\x00" + struct.pack(">HHH", 0xC8FF, 0, 0)
    content = b"\x89PNG\r\n\x1a\n"
    for name, part in ((b"IHDR", header), (b"IDAT", zlib.compress(row)), (b"IEND", b"")):
        content += struct.pack(">I", len(part)) + name + part + struct.pack(">I", zlib.crc32(name + part))
    decoded = decode_noting(content, PLAIN)
    assert decoded.pixels.tolist() == [[[0xC8, 0, 0]]]
    assert decoded.conversions == ("16-bit",)


def test_floating_point_pixels_are_refused() -> None:
    image = Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8))
    with pytest.raises(DataError, match="no agreed brightness"):
        decode(encoded(image, "TIFF"), PLAIN)


def test_cmyk_keeps_its_colours(photo: Image.Image) -> None:
    decoded = decode_noting(encoded(photo.convert("CMYK"), "JPEG", quality=95), PLAIN)
    assert decoded.conversions == ("cmyk",)
    assert np.abs(decoded.pixels.astype(int) - np.asarray(photo)).mean() < 3


def test_the_first_frame_of_an_animation_is_taken() -> None:
    red, blue = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    decoded = decode_noting(encoded(red, "GIF", save_all=True, append_images=[blue]), PLAIN)
    assert decoded.conversions == ("animated",)
    assert (decoded.pixels == (255, 0, 0)).all()


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_grey_and_palette_images_become_rgb(photo: Image.Image, mode: str) -> None:
    image = photo.convert(mode)
    decoded = decode_noting(encoded(image), PLAIN)
    np.testing.assert_array_equal(decoded.pixels, np.asarray(image.convert("RGB")))
    assert decoded.conversions == ()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"<html>404 Not Found</html>", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n", "not an image"),
        (png_with_header(60_000, 60_000), "more than the 89 million pixels"),
        (png_with_header(12_000, 12_000), "more than the 89 million pixels"),
        (png_with_header(2**31 - 1, 2**31 - 1), "more than the 89 million pixels"),
        (png_with_header(0, 10), "damaged|not an image"),
        (png_with_header(100, 100), "damaged"),
    ],
    ids=["empty", "html", "eps", "bomb", "warned-bomb", "absurd", "no-width", "no-pixels"],
)
def test_what_is_no_usable_image_is_refused_with_a_hint(content: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        decode(content, PLAIN)
    assert caught.value.hint


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_a_truncated_file_is_refused(photo: Image.Image, kind: str) -> None:
    content = encoded(photo, kind)
    for share in (0.1, 0.5, 0.9, 0.99):
        with pytest.raises(DataError):
            decode(content[: int(share * len(content))], PLAIN)


@settings(max_examples=200, deadline=None)
@given(data=st.data(), kind=st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM"]))
def test_damaged_bytes_are_decoded_or_refused_and_nothing_else(data: st.DataObject, kind: str) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (12, 12, 3), dtype=np.uint8))
    content = bytearray(encoded(image, kind))
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            assert decode(bytes(content), PLAIN).shape[2] == 3
        except DataError as error:
            assert error.hint


def test_threads_that_decode_leave_the_warning_filters_alone(photo_bytes: bytes) -> None:
    before = list(warnings.filters)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: decode(photo_bytes, PLAIN), range(12)))
    assert list(warnings.filters) == before


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    crop=st.integers(1, 40),
    margin=st.integers(0, 9),
    mode=st.sampled_from(["short", "squash"]),
    interpolation=st.sampled_from(["nearest", "bilinear", "bicubic"]),
)
def test_the_centre_of_what_is_stored_is_what_is_prepared(
    width: int, height: int, crop: int, margin: int, mode: str, interpolation: str
) -> None:
    pixels = np.random.default_rng(width * 100 + height).integers(0, 255, (height, width, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(pixels), "BMP")
    preprocess = Preprocess.model_validate(
        {
            "decoder_version": "any",
            "resize": crop + margin,
            "crop": crop,
            "resize_mode": mode,
            "interpolation": interpolation,
        }
    )
    side = stored_side(preprocess)
    assert side in (crop + margin, crop + margin - 1)
    kept, seen = stored(content, preprocess, side), prepare(content, preprocess)
    assert kept.shape == (side, side, 3)
    assert seen.shape == (crop, crop, 3)
    np.testing.assert_array_equal(centre_crop(kept, crop), seen)


def test_nothing_is_stored_around_a_crop_as_large_as_the_image() -> None:
    assert stored_side(default_preprocess(32, resize=32)) == 32


@pytest.mark.parametrize(("width", "height"), [(640, 427), (427, 640), (500, 500), (301, 99)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_the_pixels_are_those_of_torchvisions_transforms(
    photo: Image.Image, width: int, height: int, interpolation: str
) -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    image = photo.resize((width, height))
    mode = getattr(transforms.InterpolationMode, interpolation.upper())
    expected = transforms.Compose([transforms.Resize(64, mode), transforms.CenterCrop(56)])(image)
    ours = prepare(encoded(image), default_preprocess(56, resize=64, interpolation=interpolation))  # pyright: ignore
    # torchvision rounds half an odd margin to even, we round down: there the crop may start a pixel later.
    margins = (64 * width // min(width, height) - 56, 64 * height // min(width, height) - 56)
    if all(margin % 4 != 3 for margin in margins):
        np.testing.assert_array_equal(ours, np.asarray(expected))
    assert ours.shape == (56, 56, 3)


def test_a_very_long_image_is_no_bomb() -> None:
    content = encoded(Image.new("RGB", (60_000, 1), "red"))
    seen = prepare(content, default_preprocess(224))
    assert seen.shape == (224, 224, 3)
    assert (seen == (255, 0, 0)).all()


def test_a_crop_larger_than_the_image_is_refused() -> None:
    with pytest.raises(ConfigError, match="does not fit"):
        default_preprocess(64, resize=32)


def test_the_default_stores_a_margin_around_photos_only() -> None:
    assert default_preprocess(224).resize == 256
    assert default_preprocess(32).resize == 32


def test_it_imports_without_torch_and_polars() -> None:
    code = (
        "import sys; sys.modules.update(torch=None, polars=None, torchvision=None); import torchstone.data.preprocess"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
