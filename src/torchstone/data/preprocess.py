"""The one preprocessing: encoded bytes → uint8[crop, crop, 3]. Evaluation, calibration, judging and serving all use it.

numpy and Pillow only. Normalisation is no part of it: that is baked into every model's graph. The result depends on
the ``Preprocess`` and on the versions of Pillow and of the libraries it carries, nothing else.
"""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import TYPE_CHECKING, Literal

import numpy as np
import PIL
from PIL import ExifTags, Image

from torchstone.core.errors import ConfigError, DataError
from torchstone.core.values import Preprocess

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_PIXELS = 89_478_485
"""Pixels of the largest image that is decoded (256 MiB of RGB): a few bytes of header can ask for far more."""

LONGEST_ASPECT = 16
"""With ``short``, an image longer than this is first cut to its middle: what is cut off could never be in the crop."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "MPO")
"""What is decoded, by content whatever the suffix says. Not all that Pillow knows: EPS would start Ghostscript."""

Conversion = Literal["exif-rotated", "alpha", "16-bit", "cmyk", "animated"]

_INTERPOLATION = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation → what makes the image upright."""


@dataclass(frozen=True)
class Decoded:
    """An image, and the rules of its ``Preprocess`` that had something to do."""

    pixels: NDArray[np.uint8]
    """uint8[height, width, 3], RGB."""
    conversions: tuple[Conversion, ...]


def default_preprocess(
    size: int,
    *,
    resize: int | None = None,
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5),
    std: tuple[float, float, float] = (0.5, 0.5, 0.5),
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear",
    channels: Literal[1, 3] = 3,
) -> Preprocess:
    """A ``Preprocess`` for models that take ``size`` × ``size`` pixels, with this machine's decoder.

    ``resize`` is the shorter side before the centre crop. Left out, it is ``size`` up to 64 pixels (small images are
    framed by whoever made them small) and ``size / 0.875`` above, the custom since ResNet.
    """
    if resize is None:
        resize = size if size <= 64 else round(size / 0.875)
    preprocess = Preprocess(
        decoder_version=PIL.__version__,
        resize=resize,
        crop=size,
        mean=mean,
        std=std,
        interpolation=interpolation,
        channels=channels,
    )
    stored_side(preprocess)
    return preprocess


def decode(content: bytes, preprocess: Preprocess) -> NDArray[np.uint8]:
    """uint8[h, w, 3] RGB of an encoded image; a DataError says why it is not usable."""
    return decode_noting(content, preprocess).pixels


def prepare(content: bytes, preprocess: Preprocess) -> NDArray[np.uint8]:
    """uint8[crop, crop, 3]: what the model sees."""
    return fit(decode(content, preprocess), preprocess, preprocess.crop)


def stored(content: bytes, preprocess: Preprocess, side: int) -> NDArray[np.uint8]:
    """uint8[side, side, 3]: the crop with what lies around it. Its centre crop is exactly what ``prepare`` gives."""
    return fit(decode(content, preprocess), preprocess, side)


def stored_side(preprocess: Preprocess) -> int:
    """The largest ``side`` that ``stored`` can give: ``resize``, or one less so that the crop stays in the centre."""
    if preprocess.crop > preprocess.resize:
        raise ConfigError(
            f"a crop of {preprocess.crop} pixels does not fit into images resized to {preprocess.resize}",
            hint=f"resize to {preprocess.crop} or more",
        )
    return preprocess.resize - (preprocess.resize - preprocess.crop) % 2


def centre_crop(images: NDArray[np.uint8], crop: int) -> NDArray[np.uint8]:
    """The middle ``crop`` × ``crop`` pixels of uint8[..., h, w, 3], as a view."""
    height, width = images.shape[-3:-1]
    top, left = (height - crop) // 2, (width - crop) // 2
    return images[..., top : top + crop, left : left + crop, :]


def fit(pixels: NDArray[np.uint8], preprocess: Preprocess, side: int) -> NDArray[np.uint8]:
    """Decoded pixels, resized with Pillow's antialiased filters and cut to their middle ``side`` × ``side``.

    A ``side`` whose margin around the crop is odd, or that the resized image does not have, is a ValueError: the crop
    would not be what ``prepare`` gives.
    """
    if side < preprocess.crop or side > stored_side(preprocess) or (side - preprocess.crop) % 2:
        raise ValueError(f"side {side} does not fit resize {preprocess.resize} and crop {preprocess.crop}")
    height, width = pixels.shape[:2]
    if preprocess.resize_mode == "squash":
        size = (preprocess.resize, preprocess.resize)
    else:
        short = min(height, width)
        longest = LONGEST_ASPECT * short
        if max(height, width) > longest:
            top, left = max(0, (height - longest) // 2), max(0, (width - longest) // 2)
            pixels = pixels[top : top + longest, left : left + longest]
            height, width = pixels.shape[:2]
        # The longer side is rounded down, as torchvision does, so that weights trained there see the same pixels.
        size = (preprocess.resize * width // short, preprocess.resize * height // short)
    if size != (width, height):
        resized = Image.fromarray(pixels).resize(size, _INTERPOLATION[preprocess.interpolation])
        pixels = np.asarray(resized)
    return np.ascontiguousarray(centre_crop(pixels, side))


def decode_noting(content: bytes, preprocess: Preprocess) -> Decoded:
    """``decode``, with the conversions that were made."""
    if not content:
        raise DataError("the file is empty", hint="delete it, or copy it again")
    with _quiet_pillow():
        try:
            return _decode(content, preprocess)
        except DataError:
            raise
        except (PIL.UnidentifiedImageError, KeyError):
            raise DataError("not an image in a format that is read", hint=f"read: {', '.join(FORMATS)}") from None
        except Image.DecompressionBombError:
            raise _too_large() from None
        except MemoryError:
            raise DataError("not enough memory to decode it", hint="make the image smaller") from None
        except Exception as error:
            # Pillow's decoders let through whatever their parsing ran into (OSError, ValueError, SyntaxError,
            # struct.error, …): on bytes from outside, each of them means that the file is damaged.
            raise DataError(f"the image is damaged: {error}", hint="delete it, or copy it again") from None


def _decode(content: bytes, preprocess: Preprocess) -> Decoded:
    image = Image.open(BytesIO(content), formats=_formats())
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(f"{image.width} × {image.height} pixels")
    conversions: list[Conversion] = []
    sixteen_bit = any(";16" in str(tile.args) for tile in image.tile)  # RGB of 16 bits: Pillow reduces it itself
    if getattr(image, "is_animated", False):
        conversions.append("animated")
    rotation = _rotation(image)
    image.load()
    converted: Image.Image = image
    if image.mode.startswith(("I", "F")):
        sixteen_bit = True
        converted = _eight_bit(image)
    elif image.has_transparency_data:
        conversions.append("alpha")
        rgba = image.convert("RGBA")
        converted = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    elif image.mode == "CMYK":
        conversions.append("cmyk")
    if sixteen_bit:
        conversions.append("16-bit")
    converted = converted.convert("RGB")
    if rotation is not None:
        conversions.append("exif-rotated")
        # Pillow turns TIFF files upright while it loads them, and takes the tag away.
        if preprocess.exif_rotation == "apply" and image.format != "TIFF":
            converted = converted.transpose(rotation)
    return Decoded(pixels=np.asarray(converted), conversions=tuple(conversions))


def _rotation(image: Image.Image) -> Image.Transpose | None:
    """What EXIF asks for. EXIF data that cannot be parsed ask for nothing, as in every viewer."""
    try:
        return _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a parser of bytes from outside: see decode_noting
        return None


def _eight_bit(image: Image.Image) -> Image.Image:
    """The high byte of 16-bit grey, which is what Pillow does to 16-bit colour."""
    values = np.asarray(image)
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > 65535:
        raise DataError(
            f"pixels of {values.min():g} to {values.max():g} have no agreed brightness",
            hint="save the image with 8 or 16 bits a channel",
        )
    return Image.fromarray((values.astype(np.uint32) >> 8).astype(np.uint8))


def _too_large(size: str = "the header announces an image that") -> DataError:
    return DataError(
        f"{size} is more than the {MAX_PIXELS / 1e6:.0f} million pixels that are decoded",
        hint="make the image smaller; if it never was so large, its header is damaged",
    )


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


_guard = threading.Lock()
_decoding = 0
_restore = contextlib.ExitStack()


@contextlib.contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Pillow's warnings are about bytes from outside: what matters of them is checked here, and none leaves.

    ``warnings.catch_warnings`` swaps a list that all threads share, so that threads which decode side by side must
    enter and leave it as one: the first in, the last out.
    """
    global _decoding
    with _guard:
        if _decoding == 0:
            _restore.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", module=r"PIL\.")
        _decoding += 1
    try:
        yield
    finally:
        with _guard:
            _decoding -= 1
            if _decoding == 0:
                _restore.close()
