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

from torchstone.core.errors import ConfigError, DataError, MissingPackageError
from torchstone.core.values import Preprocess
from torchstone.data import decode as decoding
from torchstone.data import jpeg
from torchstone.data.preprocess import (
    LONGEST_ASPECT,
    centre_crop,
    decode,
    decode_noting,
    default_preprocess,
    fit,
    prepare,
    stored,
    stored_side,
    with_decoder,
)

PLAIN = default_preprocess(32)
DECODERS = ["pillow", *(["simplejpeg-torch"] if jpeg.installed() else [])]
needs_simplejpeg = pytest.mark.skipif(not jpeg.installed(), reason="needs simplejpeg")


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
    decoder=st.sampled_from(DECODERS),
)
def test_the_centre_of_what_is_stored_is_what_is_prepared(
    width: int, height: int, crop: int, margin: int, mode: str, interpolation: str, decoder: str
) -> None:
    pixels = np.random.default_rng(width * 100 + height).integers(0, 255, (height, width, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(pixels), "JPEG", quality=95)
    preprocess = Preprocess.model_validate(
        {
            "decoder": decoder,
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


@pytest.mark.parametrize(("width", "height"), [(640, 427), (427, 640), (500, 500), (301, 99), (643, 427), (427, 646)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_the_pixels_are_those_of_torchvisions_transforms(
    photo: Image.Image, width: int, height: int, interpolation: str
) -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    image = photo.resize((width, height))
    mode = getattr(transforms.InterpolationMode, interpolation.upper())
    expected = transforms.Compose([transforms.Resize(64, mode), transforms.CenterCrop(56)])(image)
    ours = prepare(encoded(image), default_preprocess(56, resize=64, interpolation=interpolation))  # pyright: ignore
    np.testing.assert_array_equal(ours, np.asarray(expected))


@settings(max_examples=80, deadline=None)
@given(
    width=st.integers(1, 260),
    height=st.integers(1, 260),
    crop=st.integers(1, 90),
    margin=st.integers(0, 20),
    mode=st.sampled_from(["short", "squash"]),
    interpolation=st.sampled_from(["nearest", "bilinear", "bicubic"]),
)
def test_what_is_left_out_of_the_resizing_changes_no_pixel(
    width: int, height: int, crop: int, margin: int, mode: str, interpolation: str
) -> None:
    pixels = np.random.default_rng(width * 1000 + height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    if max(width, height) > LONGEST_ASPECT * min(width, height):
        return
    resize, short = crop + margin, min(width, height)
    target = (resize, resize) if mode == "squash" else (resize * width // short, resize * height // short)
    whole = Image.fromarray(pixels).resize(target, Image.Resampling[interpolation.upper()])
    left, top = (round((length - crop) / 2) for length in target)
    expected = np.asarray(whole)[top : top + crop, left : left + crop]
    preprocess = Preprocess.model_validate(
        {
            "decoder_version": "any", "resize": resize, "crop": crop, "resize_mode": mode,
            "interpolation": interpolation,
        }
    )  # fmt: skip
    np.testing.assert_array_equal(fit(pixels, preprocess, crop), expected)
    np.testing.assert_array_equal(fit(Image.fromarray(pixels), preprocess, crop), expected)
    quick = fit(pixels, preprocess.model_copy(update={"decoder": "simplejpeg-torch"}), crop)
    assert np.abs(quick.astype(int) - expected).mean() < 1  # of noise, the hardest picture


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


@pytest.mark.skipif(not jpeg.same_as_pillow(), reason="needs simplejpeg, and Pillow with libjpeg-turbo")
@settings(max_examples=40, deadline=None)
@given(
    width=st.integers(1, 70),
    height=st.integers(1, 70),
    quality=st.integers(5, 100),
    sampling=st.sampled_from(["4:4:4", "4:2:2", "4:2:0"]),
    progressive=st.booleans(),
    mode=st.sampled_from(["RGB", "L"]),
)
def test_a_jpeg_file_has_pillows_pixels_whoever_decodes_it(
    photo: Image.Image, width: int, height: int, quality: int, sampling: str, progressive: bool, mode: str
) -> None:
    cut = photo.crop((200, 100, 200 + width, 100 + height)).convert(mode)
    content = encoded(cut, "JPEG", quality=quality, subsampling=sampling, progressive=progressive)
    found = jpeg.exact(content)
    assert found is not None
    np.testing.assert_array_equal(found, np.asarray(Image.open(BytesIO(content)).convert("RGB")))
    np.testing.assert_array_equal(decode(content, PLAIN), found)


@needs_simplejpeg
@pytest.mark.parametrize("scale", [0.5, 1, 3, 6])
@pytest.mark.parametrize("orientation", [1, 6])
def test_the_fast_decoder_shows_the_same_picture_in_the_same_place(
    photo: Image.Image, scale: float, orientation: int
) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    size = (round(scale * photo.width), round(scale * photo.height))
    content = encoded(photo.resize(size, Image.Resampling.BICUBIC), "JPEG", quality=92, exif=exif)
    exact = default_preprocess(112)
    seen = prepare(content, exact).astype(int)
    quick = prepare(content, with_decoder(exact, "simplejpeg-torch")).astype(int)
    assert np.abs(quick - seen).mean() < 2  # of 255 levels; at 6 times the size, an eighth of the file is decoded
    for shifted in (np.roll(quick, 1, axis=0), np.roll(quick, 1, axis=1), np.roll(quick, -1, axis=0)):
        assert np.abs(shifted - seen).mean() > 2 * np.abs(quick - seen).mean()


@needs_simplejpeg
def test_the_fast_decoder_leaves_all_that_is_no_plain_jpeg_to_pillow(photo: Image.Image) -> None:
    quick = with_decoder(PLAIN, "simplejpeg-torch")
    small = photo.resize((60, 40))
    for content in (encoded(small), encoded(small.convert("CMYK"), "JPEG"), encoded(small, "WEBP", lossless=True)):
        np.testing.assert_array_equal(decode(content, quick), decode(content, PLAIN))
        assert decode_noting(content, quick).conversions == decode_noting(content, PLAIN).conversions


@needs_simplejpeg
def test_the_size_of_what_is_decoded_falls_to_what_is_needed(photo: Image.Image) -> None:
    quick = with_decoder(PLAIN, "simplejpeg-torch")
    content = encoded(photo, "JPEG")  # 640 × 427
    for shortest, size in ((None, (640, 427)), (107, (640, 427)), (106, (320, 214)), (50, (160, 107)), (9, (80, 54))):
        whole = decoding.upright(content, quick, shortest)
        assert isinstance(whole.image, np.ndarray)
        assert whole.image.shape[1::-1] == size
        assert whole.size == (640, 427)


@needs_simplejpeg
@pytest.mark.parametrize(("missing", "extra"), [("simplejpeg", "fast"), ("torch", "train")])
def test_a_decoder_that_is_not_installed_says_how_to_get_it(missing: str, extra: str) -> None:
    code = (
        f"import sys; sys.modules['{missing}'] = None\n"
        "from torchstone.core.errors import MissingPackageError\n"
        "from torchstone.data.preprocess import default_preprocess, prepare, with_decoder\n"
        "plain = default_preprocess(8)\n"
        "quick = plain.model_copy(update={'decoder': 'simplejpeg-torch'})\n"
        "for wanted in (lambda: with_decoder(plain, 'simplejpeg-torch'), lambda: prepare(b'any', quick)):\n"
        "    try: wanted()\n"
        "    except MissingPackageError as error: print(error.hint)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == [f"pip install 'torchstone[{extra}]'"] * 2


def test_a_decoder_comes_with_its_version() -> None:
    assert with_decoder(PLAIN, "pillow") == PLAIN
    try:
        quick = with_decoder(PLAIN, "simplejpeg-torch")
    except MissingPackageError:
        return
    assert quick.decoder_version.endswith(PLAIN.decoder_version)
    assert with_decoder(quick, "pillow") == PLAIN
    assert Preprocess.model_validate_json(quick.model_dump_json()) == quick


def test_a_png_file_whose_checksum_is_wrong_is_refused(photo: Image.Image) -> None:
    content = bytearray(encoded(photo.resize((20, 20))))
    content[content.index(b"IDAT") - 4 + 8 + 50] ^= 1
    with pytest.raises(DataError, match="checksum of its IDAT chunk is wrong"):
        decode(bytes(content), PLAIN)


def test_threads_wait_while_too_many_pixels_are_decoded(photo_bytes: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """640 × 427 pixels, and room for two such images: of four threads, two wait, and all finish."""
    monkeypatch.setattr(decoding, "PIXELS_AT_ONCE", 2 * 640 * 427)
    at_once: list[int] = []
    orientation = decoding._orientation

    def noted(image: Image.Image) -> int:
        at_once.append(decoding._pixels)
        return orientation(image)

    monkeypatch.setattr(decoding, "_orientation", noted)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: decode(photo_bytes, PLAIN), range(24)))
    assert len(found) == len(at_once) == 24
    assert 0 < max(at_once) <= 2 * 640 * 427
    assert decoding._pixels == 0
