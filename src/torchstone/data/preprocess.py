"""The one preprocessing: encoded bytes → uint8[crop, crop, 3]. Evaluation, calibration, judging and serving all use it.

numpy and Pillow only (and simplejpeg and PyTorch, where a ``Preprocess`` names them). Normalisation is no part of it:
that is baked into every model's graph. The result depends on the ``Preprocess`` and on the versions of Pillow and of
the libraries it carries, nothing else.
"""

from __future__ import annotations

import math
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Literal

import numpy as np
import PIL
from PIL import Image

from torchstone.core.errors import ConfigError
from torchstone.core.values import Preprocess
from torchstone.data.decode import (
    FORMATS,
    MAX_PIXELS,
    Conversion,
    Decoded,
    decode,
    decode_noting,
    packages_of,
    upright,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "FORMATS", "MAX_PIXELS", "Conversion", "Decoded", "centre_crop", "decode", "decode_noting", "default_preprocess",
    "fit", "prepare", "stored", "stored_side", "with_decoder",
]  # fmt: skip

Decoder = Literal["pillow", "simplejpeg-torch"]

LONGEST_ASPECT = 16
"""With ``short``, an image longer than this is first cut to its middle: what is cut off could never be in the crop."""

TALLEST = 1.5
"""Times its width that an image may be high to be resized in two steps of ours. Pillow 13 resizes the columns of an
image first that is more than twice as high; earlier versions never do."""

_INTERPOLATION = {"bilinear": (Image.Resampling.BILINEAR, 1), "bicubic": (Image.Resampling.BICUBIC, 2)}
"""Pillow's filters, and the pixels that they reach to each side where an image is not made smaller."""


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
    if needed := packages_of(decoder):
        named = [f"{name} {metadata.version(name)}" for name in needed]
        version = ", ".join([*named, f"Pillow {version}"])  # what is no JPEG is decoded by Pillow
    return preprocess.model_copy(update={"decoder": decoder, "decoder_version": version})


def prepare(content: bytes, preprocess: Preprocess, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """uint8[crop, crop, 3]: what the model sees. A DataError for an image of more pixels than that, by its header."""
    return stored(content, preprocess, preprocess.crop, max_pixels=max_pixels)


def stored(content: bytes, preprocess: Preprocess, side: int, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """uint8[side, side, 3]: the crop with what lies around it. Its centre crop is exactly what ``prepare`` gives."""
    whole = upright(content, preprocess, shortest=preprocess.resize, max_pixels=max_pixels)
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
    width, height = size or _size(pixels)
    if preprocess.resize_mode == "squash":
        target = (preprocess.resize, preprocess.resize)
    else:
        if max(width, height) > LONGEST_ASPECT * min(width, height):
            pixels = _middle(pixels)
            width, height = _size(pixels)
        # The longer side is rounded down, as torchvision does, so that weights trained there see the same pixels.
        short = min(width, height)
        target = (preprocess.resize * width // short, preprocess.resize * height // short)
    left, top = (_first(length, side, preprocess.crop) for length in target)
    if target == _size(pixels):
        return np.ascontiguousarray(np.asarray(pixels)[top : top + side, left : left + side])
    box = (left, top, left + side, top + side)
    if preprocess.interpolation == "nearest":
        return np.asarray(_image(pixels).resize(target, Image.Resampling.NEAREST).crop(box))
    if preprocess.decoder != "pillow":
        return _resized_by_torch(pixels, target, preprocess.interpolation, box)
    method, reach = _INTERPOLATION[preprocess.interpolation]
    if preprocess.resize_mode == "short" and height <= TALLEST * width and _rows_first():
        return np.asarray(_box_resized(pixels, target, method, reach, box))
    return np.asarray(_image(pixels).resize(target, method).crop(box))


def _first(length: int, side: int, crop: int) -> int:
    """Where ``side`` pixels begin whose middle is the crop. Half an odd margin is rounded to even, as in torchvision's
    CenterCrop, so that weights trained there see the same pixels."""
    return round((length - crop) / 2) - (side - crop) // 2


def _size(pixels: NDArray[np.uint8] | Image.Image) -> tuple[int, int]:
    """Width and height."""
    return (pixels.shape[1], pixels.shape[0]) if isinstance(pixels, np.ndarray) else pixels.size


def _image(pixels: NDArray[np.uint8] | Image.Image) -> Image.Image:
    return Image.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels


def _middle(pixels: NDArray[np.uint8] | Image.Image) -> Image.Image:
    """An image that is longer than ``LONGEST_ASPECT``, cut to that."""
    width, height = _size(pixels)
    longest = LONGEST_ASPECT * min(width, height)
    left, top = max(0, (width - longest) // 2), max(0, (height - longest) // 2)
    return _image(pixels).crop((left, top, min(width, left + longest), min(height, top + longest)))


def _box_resized(
    pixels: NDArray[np.uint8] | Image.Image,
    target: tuple[int, int],
    method: Image.Resampling,
    reach: int,
    box: tuple[int, int, int, int],
) -> Image.Image:
    """The ``box`` of the image resized to ``target`` by Pillow, bit for bit, without most of what lies around it.

    Pillow resizes rows, then columns, and rounds in between. So rows that no pixel of the box is made of can be left
    out of the first step, and columns beside the box out of the second.
    """
    (width, height), (left, top, right, bottom) = _size(pixels), box
    down = height / target[1]
    around = reach * max(1.0, down) + 1  # one more than the filter reaches
    first, last = max(0, math.floor(top * down - around)), min(height, math.ceil(bottom * down + around))
    rows = pixels[first:last] if isinstance(pixels, np.ndarray) else pixels.crop((0, first, width, last))
    image = _image(rows).resize((target[0], last - first), method)
    image = image.crop((left, -first, right, height - first))  # as high as before: black where rows were left out
    return image.resize((right - left, target[1]), method).crop((0, top, right - left, bottom))


@cache
def _rows_first() -> bool:
    """Whether this Pillow resizes rows before columns, in either orientation, to fewer pixels and to more."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 96), dtype=np.uint8)
    for pixels in (noise, noise.T):
        image = Image.fromarray(np.ascontiguousarray(pixels))
        for factor in (0.4, 0.8, 1.7):
            target = (round(factor * image.width), round(factor * image.height))
            for method, _ in _INTERPOLATION.values():
                apart = image.resize((target[0], image.height), method).resize(target, method)
                if image.resize(target, method) != apart:
                    return False
    return True


def _resized_by_torch(
    pixels: NDArray[np.uint8] | Image.Image, target: tuple[int, int], interpolation: str, box: tuple[int, int, int, int]
) -> NDArray[np.uint8]:
    """The ``box`` of the image resized to ``target`` by PyTorch, whose filters are Pillow's with weights of 16 bits
    instead of 22: a third of the time, and one value in hundreds that differs by one level."""
    import torch

    left, top, right, bottom = box
    array = pixels if isinstance(pixels, np.ndarray) else np.array(pixels)  # a copy: torch takes what can be written
    planes = torch.from_numpy(array[None]).permute(0, 3, 1, 2)  # seen as planes; in memory, colours stay side by side
    resized = torch.nn.functional.interpolate(planes, target[::-1], mode=interpolation, antialias=True)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy()[top:bottom, left:right])


UPRIGHT = default_preprocess(1)
"""For whoever wants whole pictures: only the rules of decoding matter of it."""
