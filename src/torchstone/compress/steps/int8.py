"""INT8 after training, calibrated on the calib images; each target has a back end of its own beside this folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from torchstone.compress.int8 import backend
from torchstone.core.artifact import identified, noted
from torchstone.core.contracts import Needs, Step, StepConfig, StepContext
from torchstone.core.errors import ChainError
from torchstone.core.seeding import sample_rows
from torchstone.core.values import Artifact

HARDLY = 0.95
"""Of the file's size: a rescue that leaves more is one in name."""


class Int8(Step):
    """Weights and activations of convolutions and linear layers as 8-bit integers.

    ``@onnxruntime``: QDQ with unsigned activations and signed weights per channel, the only layout that is fast on
    x86. ``@openvino``: NNCF, whose ``performance`` preset is symmetric and whose ``mixed`` keeps activations
    asymmetric (slower, sometimes more accurate). Both calibrate by minimum and maximum unless asked otherwise, correct
    biases for what rounded weights add to a layer's mean output, and leave the logits in floating point.

    ``int8:max_drop=0.3`` puts layers back to floating point, the most sensitive first, until no more than 0.3 points of
    top-1 on val are lost against the model before this step, and names them. That is a choice made on val: whether the
    drop holds is the judge's to say. ``int8:keep=6`` leaves the six most sensitive layers in floating point without
    asking anything but the calibration images: for a network whose labels are not at hand.

    ``int8:depthwise=float`` rounds no depthwise convolution. Their filters hold few weights, their part of a network's
    time is small, and where they are what INT8 loses by (EfficientNet, MobileNet), that is the cheapest rescue.
    """

    version = 7
    accepts = ("onnx", "openvino")
    targets = ("onnxruntime", "openvino")
    value_option = "images"
    final = True
    integers = True
    place = "arithmetic"

    class Config(StepConfig):
        images: int = Field(default=128, ge=8, description="calibration images; as many as there are, at most this")
        calibration: Literal["minmax", "entropy", "percentile", "histogram"] = Field(
            default="minmax",
            description="how the range of an activation is found; entropy and percentile are of ONNX Runtime, "
            "histogram (the least squared error) of NNCF, whose minmax is the mean over images",
        )
        percentile: float = Field(
            default=99.999, gt=90, le=100, description="of the activations, what lies within calibration=percentile"
        )
        preset: Literal["performance", "mixed"] = Field(default="performance", description="of NNCF")
        bias: Literal["fast", "accurate", "none"] = Field(
            default="fast",
            description="how biases make up for what rounding shifts; accurate: layer by layer, slow, of NNCF alone",
        )
        depthwise: Literal["int8", "float"] = Field(
            default="int8", description="what depthwise convolutions compute in"
        )
        max_drop: float | None = Field(
            default=None, ge=0, lt=100, description="points of top-1 on val that may be lost; None: val is not asked"
        )
        keep: int | None = Field(
            default=None, ge=1, description="layers that stay in floating point, those that move the logits most"
        )

    def requires_for(self, target: str | None) -> tuple[str, ...]:
        return backend(target or self.targets[0]).REQUIRES

    def check(self, config: Any, target: str | None) -> None:
        options = {one: backend(one).OPTIONS for one in self.targets}
        here = options[target or self.targets[0]]
        for option in sorted(config.model_fields_set & {name for its in options.values() for name in its}):
            value = getattr(config, option)
            others = [one for one, its in options.items() if option in its and value in (its[option] or (value,))]
            if option not in here:
                raise ChainError(f"'int8@{target}' has no {option}", hint=f"it is an option of int8@{others[0]}")
            if value not in (here[option] or (value,)):
                raise ChainError(
                    f"'int8@{target}' has no {option}={value}",
                    hint=f"{option}={' or '.join(here[option] or ())}; or int8@{others[0]}",
                )
        if config.keep is not None and config.max_drop is not None:
            raise ChainError(
                "keep and max_drop both say how many layers stay in floating point", hint="int8:max_drop=0.3 finds out"
            )
        if "percentile" in config.model_fields_set and config.calibration != "percentile":
            raise ChainError(
                f"'int8' calibrates by {config.calibration}, which has no percentile",
                hint=f"int8:calibration=percentile,percentile={config.percentile:g}",
            )

    def fits(self, config: Any, origin: Artifact) -> None:
        if config.depthwise == "float" and origin.format == "torch":
            from torch import nn

            from torchstone.models import store

            found = [one for one in store.load_network(origin).modules() if isinstance(one, nn.Conv2d)]
            if not any(one.groups == one.in_channels > 1 for one in found):
                raise ChainError("the network has no depthwise convolutions", hint="leave out 'depthwise=float'")

    def wants_val(self, config: Any) -> bool:
        return config.max_drop is not None

    def needs(self, config: Any) -> Needs:
        return Needs(calibration=config.images)

    def ranges(self, artifact: Artifact) -> Mapping[str, Any] | None:
        return {
            "images": [64, 128, 256],
            "calibration": ["minmax", "entropy", "percentile", "histogram"],
            "preset": ["performance", "mixed"],
        }

    def apply(
        self, artifact: Artifact, context: StepContext, config: Any, target: str | None, out_dir: Path
    ) -> Artifact:
        pixels = context.calib.images(sample_rows(context.calib.labels, config.images, "calibration"))
        if len(pixels) < config.images and "images" in config.model_fields_set:
            artifact = noted(artifact, f"int8: {config.images:,} calibration images asked, {len(pixels):,} there")
        quantise = backend(target or self.targets[0]).Quantiser
        if config.depthwise == "float":
            from torchstone.compress.int8.sparing import sparing

            quantise = sparing(quantise)
        if config.keep is not None:
            from torchstone.compress.int8.rescue import keep

            floating = keep(artifact, pixels, config, out_dir, quantise)
            made = noted(identified(artifact, out_dir), f"int8 leaves in floating point: {', '.join(floating)}")
            return _weighed(made, artifact, floating)
        if config.max_drop is not None:
            from torchstone.compress.int8.rescue import rescue

            assert context.val is not None
            done = rescue(artifact, context.val, pixels, config, out_dir, quantise)
            kept = f"in floating point: {', '.join(done.floating)}" if done.floating else "every layer in INT8"
            made = noted(identified(artifact, out_dir), f"int8 loses {done.drop:.2f} points on val, {kept}")
            return _weighed(made, artifact, done.floating)
        with quantise(artifact, pixels, config) as quantiser:
            quantiser.write(out_dir)
        return identified(artifact, out_dir)


def _weighed(made: Artifact, before: Artifact, floating: Sequence[str]) -> Artifact:
    """``made``, with a note where so many of its layers are in floating point that it is hardly smaller."""
    if not floating or made.size_mb < HARDLY * before.size_mb:
        return made
    return noted(
        made,
        f"int8 made hardly anything smaller, {made.size_mb:.2f} MB of {before.size_mb:.2f}, with so many layers in "
        f"floating point ({len(floating)}): let more be lost, calibrate on more images, or leave 'int8' out",
    )
