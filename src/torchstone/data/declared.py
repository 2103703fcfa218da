"""Preprocessing that somebody declares for a model of his: by a name, or in a TOML file.

What is declared becomes a ``Preprocess`` (core.values): how an image is resized and cropped, and the mean and deviation
of its colours; and what the file wants beside that, the order of colours and of sides.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from torchstone.core import files
from torchstone.core.errors import ConfigError, nearest
from torchstone.core.values import IMAGENET_MEAN, IMAGENET_STD, Preprocess, Value
from torchstone.data.preprocess import default_preprocess

Colour = Literal["rgb", "bgr"]
Layout = Literal["NHWC", "NCHW"]
Triple = tuple[float, float, float]

CAFFE_MEAN: Triple = (104.0, 117.0, 123.0)


class Declared(Value):
    """The keys of the TOML file. A pixel x of 0 to 255 becomes (scale · x / 255 − mean) / std: ``scale`` is what white
    is before the mean is taken. ``mean`` and ``std`` are in the order of ``colour``."""

    size: int | None = Field(default=None, ge=8, description="pixels a side; by default what the file says")
    resize: int | None = Field(default=None, ge=8, description="before the crop; by default size, or size / 0.875")
    resize_mode: Literal["short", "squash"] = "short"
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    exif_rotation: Literal["apply", "ignore"] = "apply"
    colour: Colour = "rgb"
    layout: Layout | None = Field(default=None, description="by default what the shape of the input says")
    scale: float = Field(default=1.0, gt=0, description="what white becomes first: 1, or 255 for pixels as they are")
    mean: Triple = (0.0, 0.0, 0.0)
    std: Triple = (1.0, 1.0, 1.0)

    def preprocess(self, side: int | None) -> Preprocess:
        """For a file whose images have ``side`` pixels a side, None: it does not say. A ConfigError where that and the
        declared size differ, or there is none."""
        if side is None and self.size is None:
            raise ConfigError(
                "the model takes images of any size, and none is declared", hint="a file for --preprocess: size = 224"
            )
        if side is not None and self.size is not None and side != self.size:
            raise ConfigError(f"size = {self.size} is declared, and the model takes {side} × {side} pixels")
        if min(self.std) <= 0:
            raise ConfigError(
                f"std = {list(self.std)} is declared", hint="deviations are above 0; for none, leave it out"
            )
        crop = side or self.size or 0
        made = default_preprocess(
            crop,
            resize=self._resize(crop),
            mean=self._in_order(self.mean),
            std=self._in_order(self.std),
            interpolation=self.interpolation,
        )
        return made.model_copy(update={"resize_mode": self.resize_mode, "exif_rotation": self.exif_rotation})

    def _in_order(self, values: Triple) -> Triple:
        """As ``Preprocess`` has them: red first, white being 1."""
        first, second, third = (value / self.scale for value in values)
        return (first, second, third) if self.colour == "rgb" else (third, second, first)

    def _resize(self, side: int) -> int | None:
        return side if self.resize is None and self.resize_mode == "squash" else self.resize


NAMED: dict[str, Declared] = {
    "imagenet": Declared(mean=IMAGENET_MEAN, std=IMAGENET_STD),
    "inception": Declared(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    "unit": Declared(),
    "raw": Declared(scale=255.0),
    "caffe": Declared(scale=255.0, mean=CAFFE_MEAN, colour="bgr"),
}
"""``imagenet``: as torchvision and most of timm; ``inception``: −1 to 1, as TensorFlow's; ``unit``: 0 to 1; ``raw``: 0
to 255; ``caffe``: BGR, 0 to 255, less (104, 117, 123)."""


def declared(text: str) -> Declared:
    """What a name or a TOML file declares. A ConfigError names the key that is unknown or out of range."""
    if text in NAMED:
        return NAMED[text]
    if not Path(text).is_file():
        raise ConfigError(
            f"'{text}' is neither a preprocessing nor a file", hint=nearest(text, NAMED) + "; or a TOML file"
        )
    content = files.read_toml(Path(text), "the preprocessing")
    known = [name for name in Declared.model_fields if name != "schema_version"]
    for key in content:
        if key not in known:
            raise ConfigError(f"unknown key '{key}' in '{text}'", hint=nearest(key, known))
    try:
        return Declared.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise ConfigError(f"{name} = {content[name]!r} in '{text}' is refused: {first['msg'].lower()}") from None


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A preprocessing that is tried beside the declared one."""

    change: str
    """What differs, in words."""
    preprocess: Preprocess
    colour: Colour


def likely_others(preprocess: Preprocess, colour: Colour, *, normalised: bool) -> Iterator[Variant]:
    """What else such a model may want: the other order of colours, the other customary normalisations (not of one that
    is ``normalised`` inside), each in both orders, and the other ways of framing."""
    flip: dict[Colour, Colour] = {"rgb": "bgr", "bgr": "rgb"}
    yield Variant(
        change=f"{flip[colour].upper()} in place of {colour.upper()}", colour=flip[colour],
        preprocess=preprocess.model_copy(update={"mean": preprocess.mean[::-1], "std": preprocess.std[::-1]}),
    )  # fmt: skip
    if not normalised:
        yield from _normalisations(preprocess)
    yield from framings(preprocess, colour)


def framings(preprocess: Preprocess, colour: Colour) -> Iterator[Variant]:
    """The other customary ways from a picture to a square."""
    crop = preprocess.crop
    ways = {
        f"short side {round(crop / 0.875)}, then a crop of {crop}": ("short", round(crop / 0.875)),
        f"short side {crop}, then its middle": ("short", crop),
        f"both sides squashed to {crop}": ("squash", crop),
    }
    for change, (mode, resize) in ways.items():
        if (mode, resize) != (preprocess.resize_mode, preprocess.resize):
            framed = preprocess.model_copy(update={"resize_mode": mode, "resize": resize})
            yield Variant(change=change, preprocess=framed, colour=colour)


def _normalisations(preprocess: Preprocess) -> Iterator[Variant]:
    orders: tuple[Colour, ...] = ("rgb", "bgr")
    for name, known in NAMED.items():
        normal = known.preprocess(preprocess.crop)
        if (normal.mean, normal.std) == (preprocess.mean, preprocess.std):
            continue
        made = preprocess.model_copy(update={"mean": normal.mean, "std": normal.std})
        for colour in orders:
            yield Variant(change=f"'{name}' in {colour.upper()}", preprocess=made, colour=colour)
