"""Encoded bytes → RGB pixels, by the rules of a ``Preprocess``; what is not usable is a DataError that says why.

Bytes come from outside: their size in pixels, the number of their scans and the checksums that they carry are looked at
before or while they are decoded, nothing in them is trusted, and every error of a decoder is the file's.
"""

from __future__ import annotations

import contextlib
import importlib.util
import threading
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import TYPE_CHECKING, Literal

import numpy as np
import PIL
from PIL import ExifTags, Image

from torchstone.core.errors import DataError, MissingPackageError
from torchstone.core.values import Preprocess
from torchstone.data import jpeg

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_PIXELS = 89_478_485
"""Pixels of the largest image that is decoded (256 MiB of RGB): a few bytes of header can ask for far more."""

PIXELS_AT_ONCE = 4 * MAX_PIXELS
"""Of all images that the threads of this process decode side by side, at up to 11 bytes each: the memory that a folder
of huge images costs must not grow with the number of cores."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "MPO")
"""What is decoded, by content whatever the suffix says. Not all that Pillow knows: EPS would start Ghostscript."""

Conversion = Literal["exif-rotated", "alpha", "16-bit", "cmyk", "animated", "recovered"]
"""``recovered``: a JPEG file with damage that its decoder passed over. It takes the extra ``fast`` to notice."""

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
_TURNED = (5, 6, 7, 8)
"""Orientations in which width and height change places."""
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Decoded:
    """An image, and the rules of its ``Preprocess`` that had something to do."""

    pixels: NDArray[np.uint8]
    """uint8[height, width, 3], RGB."""
    conversions: tuple[Conversion, ...]
    format: str
    """What the content is, as Pillow calls it: ``JPEG``, ``PNG``, …"""


@dataclass(frozen=True)
class Upright:
    """An image before it is resized."""

    image: Image.Image | NDArray[np.uint8]
    """RGB, the way up that it is looked at. An array where it was decoded into one: some callers want no other."""
    size: tuple[int, int]
    """Width and height of the image as it is stored; ``image`` may have been decoded at a fraction of them."""
    conversions: tuple[Conversion, ...]
    format: str


def decode(content: bytes, preprocess: Preprocess) -> NDArray[np.uint8]:
    """uint8[h, w, 3] RGB of an encoded image; a DataError says why it is not usable."""
    return decode_noting(content, preprocess).pixels


def decode_noting(content: bytes, preprocess: Preprocess) -> Decoded:
    """``decode``, with the conversions that were made."""
    whole = upright(content, preprocess)
    return Decoded(pixels=np.asarray(whole.image), conversions=whole.conversions, format=whole.format)


@cache
def packages_of(decoder: str) -> tuple[str, ...]:
    """What a decoder takes besides Pillow; a MissingPackageError for what of it is not installed."""
    needed = () if decoder == "pillow" else tuple(decoder.split("-"))
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        raise MissingPackageError(f"the decoder '{decoder}'", missing)
    return needed


def upright(
    content: bytes, preprocess: Preprocess, shortest: int | None = None, max_pixels: int = MAX_PIXELS
) -> Upright:
    """The decoded image. Where the decoder can, it is decoded at a fraction of its size, if that is enough to make its
    shorter side ``shortest`` pixels long. Raises a DataError for what is not usable, an image whose header announces
    more than ``max_pixels`` among it, and a MissingPackageError for a decoder that is not installed."""
    packages_of(preprocess.decoder)
    if not content:
        raise DataError("the file is empty", hint="delete it, or copy it again")
    with _quiet_pillow():
        try:
            return _upright(content, preprocess, shortest, min(max_pixels, MAX_PIXELS))
        except DataError:
            raise
        except (PIL.UnidentifiedImageError, KeyError):
            raise DataError("not an image in a format that is read", hint=f"read: {', '.join(FORMATS)}") from None
        except Image.DecompressionBombError:
            raise _too_large(most=min(max_pixels, MAX_PIXELS)) from None
        except MemoryError:
            raise DataError("not enough memory to decode it", hint="make the image smaller") from None
        except Exception as error:
            # Pillow's decoders let through whatever their parsing ran into (OSError, ValueError, SyntaxError,
            # struct.error, …): on bytes from outside, each of them means that the file is damaged.
            raise _damaged(str(error)) from None


def _upright(content: bytes, preprocess: Preprocess, shortest: int | None, max_pixels: int) -> Upright:
    if content.startswith(_PNG):
        _check_png(content)
    image = Image.open(BytesIO(content), formats=_formats())
    if image.width * image.height > max_pixels:
        raise _too_large(f"{image.width} × {image.height} pixels", max_pixels)
    # RGB of 16 bits, which Pillow reduces itself; to ask for the rotation may load the image, and then nothing says so.
    sixteen_bit = any(";16" in str(tile.args) for tile in image.tile)
    conversions: list[Conversion] = []
    if getattr(image, "is_animated", False):
        conversions.append("animated")
    size = image.size
    with _room(size[0] * size[1]):
        orientation = _orientation(image)
        loaded: Image.Image | NDArray[np.uint8] | None = None
        if image.format == "JPEG":
            loaded = _from_jpeg(content, image, preprocess, shortest, conversions)
        if loaded is None:
            loaded = _rgb(image, conversions, sixteen_bit=sixteen_bit)
    if orientation != 1:
        conversions.append("exif-rotated")
        # Pillow turns TIFF files upright while it loads them, and takes the tag away.
        if preprocess.exif_rotation == "apply" and image.format != "TIFF":
            turned = Image.fromarray(loaded) if isinstance(loaded, np.ndarray) else loaded
            loaded = turned.transpose(_UPRIGHT[orientation])
            size = (size[1], size[0]) if orientation in _TURNED else size
    if image.format == "TIFF" and isinstance(loaded, Image.Image):
        size = loaded.size
    return Upright(image=loaded, size=size, conversions=tuple(conversions), format=str(image.format))


def _from_jpeg(
    content: bytes, image: Image.Image, preprocess: Preprocess, shortest: int | None, conversions: list[Conversion]
) -> NDArray[np.uint8] | None:
    """The pixels of an opened JPEG file without Pillow; None where Pillow has to load it: a colour space of its own, or
    damage, of which Pillow decides whether an image is left."""
    if jpeg.too_many_scans(content):
        raise DataError(
            f"the image is painted in more than {jpeg.MAX_SCANS} scans", hint="save it again as an ordinary JPEG file"
        )
    if image.mode not in ("RGB", "L"):
        return None
    if preprocess.decoder != "pillow":
        pixels = jpeg.reduced(content, image.width, image.height, shortest)
    elif jpeg.same_as_pillow():
        pixels = jpeg.exact(content)
    else:
        return None
    if pixels is None:
        conversions.append("recovered")
    return pixels


def _rgb(image: Image.Image, conversions: list[Conversion], *, sixteen_bit: bool) -> Image.Image:
    """Load an image and make it RGB of 8 bits; what that took is added to ``conversions``."""
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
    return converted if converted.mode == "RGB" else converted.convert("RGB")


def _check_png(content: bytes) -> None:
    """Refuse a PNG file of which a chunk that makes the picture does not fit its checksum, as libpng does. Pillow skips
    the checksums of the pixels, so that it shows them wherever the decompression happens to go on."""
    view = memoryview(content)
    place = len(_PNG)
    while place + 12 <= len(content):
        length, kind = int.from_bytes(view[place : place + 4], "big"), bytes(view[place + 4 : place + 8])
        end = place + 8 + length
        critical = not kind[0] & 0x20
        if (
            critical
            and end + 4 <= len(content)
            and zlib.crc32(view[place + 4 : end]) != int.from_bytes(view[end : end + 4], "big")
        ):
            raise _damaged(f"the checksum of its {kind.decode('latin-1')} chunk is wrong")
        if kind == b"IEND":
            return
        place = end + 4


def _orientation(image: Image.Image) -> int:
    """What EXIF says, 1 to 8. EXIF data that cannot be parsed say nothing, as in every viewer."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # a parser of bytes from outside: see upright
        return 1
    return orientation if orientation in _UPRIGHT else 1


def _eight_bit(image: Image.Image) -> Image.Image:
    """The high byte of 16-bit grey, which is what Pillow does to 16-bit colour."""
    values = np.asarray(image)
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > 65535:
        raise DataError(
            f"pixels of {values.min():g} to {values.max():g} have no agreed brightness",
            hint="save the image with 8 or 16 bits a channel",
        )
    return Image.fromarray((values.astype(np.uint32) >> 8).astype(np.uint8))


def _damaged(how: str) -> DataError:
    return DataError(f"the image is damaged: {how}", hint="delete it, or copy it again")


def _too_large(size: str = "the header announces an image that", most: int = MAX_PIXELS) -> DataError:
    return DataError(
        f"{size} is more than the {round(most / 1e6, 0 if most > 10e6 else 2):g} million pixels that are decoded",
        hint="make the image smaller; if it never was so large, its header is damaged",
    )


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


_pixels = 0
_fewer = threading.Condition()


@contextlib.contextmanager
def _room(pixels: int) -> Iterator[None]:
    """Wait until ``pixels`` more may be decoded."""
    global _pixels
    with _fewer:
        _fewer.wait_for(lambda: _pixels + pixels <= PIXELS_AT_ONCE)
        _pixels += pixels
    try:
        yield
    finally:
        with _fewer:
            _pixels -= pixels
            _fewer.notify_all()


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
