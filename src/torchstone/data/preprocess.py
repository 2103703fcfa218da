"""The one preprocessing: encoded bytes → uint8[crop, crop, 3]. Evaluation, calibration, judging and serving all use it.

numpy and Pillow only (and simplejpeg, where a ``Preprocess`` names it). Normalisation is no part of it: that is baked
into every model's graph. The result depends on the ``Preprocess`` and on the versions of Pillow and of the libraries it
carries, nothing else.
"""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Literal

import numpy as np
import PIL
from PIL import Image

from torchstone.core.errors import ConfigError, MissingPackageError
from torchstone.core.values import Preprocess
from torchstone.data import jpeg
from torchstone.data.decode import FORMATS, MAX_PIXELS, Conversion, Decoded, decode, decode_noting, upright

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "FORMATS", "MAX_PIXELS", "Conversion", "Decoded", "centre_crop", "decode", "decode_noting", "default_preprocess",
    "fit", "prepare", "stored", "stored_side", "with_decoder",
]  # fmt: skip

Decoder = Literal["pillow", "simplejpeg"]

LONGEST_ASPECT = 16
"""With ``short``, an image longer than this is first cut to its middle: what is cut off could never be in the crop."""

_INTERPOLATION = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


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


def with_decoder(preprocess: Preprocess, decoder: Decoder) -> Preprocess:
    """The same preprocessing with another decoder, in the version that is installed here."""
    version = PIL.__version__
    if decoder == "simplejpeg":
        if not jpeg.installed():
            raise MissingPackageError(f"the decoder '{decoder}'", ["simplejpeg"])
        version = f"{metadata.version('simplejpeg')}, Pillow {PIL.__version__}"  # what is no JPEG is Pillow's
    return preprocess.model_copy(update={"decoder": decoder, "decoder_version": version})


def prepare(content: bytes, preprocess: Preprocess) -> NDArray[np.uint8]:
    """uint8[crop, crop, 3]: what the model sees."""
    return stored(content, preprocess, preprocess.crop)


def stored(content: bytes, preprocess: Preprocess, side: int) -> NDArray[np.uint8]:
    """uint8[side, side, 3]: the crop with what lies around it. Its centre crop is exactly what ``prepare`` gives."""
    whole = upright(content, preprocess, shortest=preprocess.resize)
    return fit(whole.image, preprocess, side, whole.size)


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


def fit(
    pixels: NDArray[np.uint8] | Image.Image, preprocess: Preprocess, side: int, size: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """Decoded pixels, resized with Pillow's antialiased filters and cut to their middle ``side`` × ``side``.

    ``size`` is the width and height of the whole image where the pixels were decoded at a fraction of it: what is seen
    of an image must not depend on that fraction. A ``side`` whose margin around the crop is odd, or that the resized
    image does not have, is a ValueError: the crop would not be what ``prepare`` gives.
    """
    if side < preprocess.crop or side > stored_side(preprocess) or (side - preprocess.crop) % 2:
        raise ValueError(f"side {side} does not fit resize {preprocess.resize} and crop {preprocess.crop}")
    image = Image.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels
    width, height = size or image.size
    if preprocess.resize_mode == "squash":
        target = (preprocess.resize, preprocess.resize)
    else:
        if max(width, height) > LONGEST_ASPECT * min(width, height):
            image = _middle(image)
            width, height = image.size
        # The longer side is rounded down, as torchvision does, so that weights trained there see the same pixels.
        short = min(width, height)
        target = (preprocess.resize * width // short, preprocess.resize * height // short)
    if target != image.size:
        method = _INTERPOLATION[preprocess.interpolation]
        if preprocess.decoder == "pillow":
            image = image.resize(target, method)
        else:
            image = _middle_resized(image, target, method, side)
    return np.ascontiguousarray(centre_crop(np.asarray(image), side))


def _middle(image: Image.Image) -> Image.Image:
    """An image that is longer than ``LONGEST_ASPECT``, cut to that."""
    width, height = image.size
    longest = LONGEST_ASPECT * min(width, height)
    left, top = max(0, (width - longest) // 2), max(0, (height - longest) // 2)
    return image.crop((left, top, min(width, left + longest), min(height, top + longest)))


def _middle_resized(image: Image.Image, target: tuple[int, int], method: Image.Resampling, side: int) -> Image.Image:
    """The middle ``side`` × ``side`` of the image resized to ``target``, resized alone. Its pixels do not depend on
    ``side``; they differ from those of the whole image by a level in one of a hundred."""
    left, top = (target[0] - side) // 2, (target[1] - side) // 2
    across, down = _step(image.width, target[0]), _step(image.height, target[1])
    columns, rows = (left * across, (left + side) * across), (top * down, (top + side) * down)
    # One direction at a time, the longer first: Pillow would choose by what is left to do, so that the rounding in
    # between would depend on ``side``.
    if image.width >= image.height:
        image = image.resize((side, image.height), method, box=(columns[0], 0, columns[1], image.height))
        return image.resize((side, side), method, box=(0, rows[0], side, rows[1]))
    image = image.resize((image.width, side), method, box=(0, rows[0], image.width, rows[1]))
    return image.resize((side, side), method, box=(columns[0], 0, columns[1], side))


def _step(length: int, target: int) -> float:
    """Pixels of the image for each of the resized one, rounded down to so few binary digits that its multiples up to
    ``length`` are exact in the 32-bit numbers in which Pillow takes a box."""
    digits = 23 - length.bit_length()
    return ((length << digits) // target) / (1 << digits)
