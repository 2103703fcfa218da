"""A TensorFlow Lite file from elsewhere: it is kept as it is, and given what it wants."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from torchstone.core.artifact import identified
from torchstone.core.errors import ArtifactError, nearest
from torchstone.core.values import Artifact, InputSpec, OutputSpec, RuntimeOptions
from torchstone.export.foreign import Described, square
from torchstone.runtimes import adapt
from torchstone.runtimes.litert import open_interpreter

SOFTMAX_STEP = 1 / 256
OF_SOFTMAX = {np.dtype(np.uint8): 0, np.dtype(np.int8): -128}
"""Zero points of a quantised Softmax, whose scale is fixed as well: by these its output is known. Its sums are not 1,
since what is below half a step is none."""


def describe(path: Path, layout: str | None, output: str | None) -> Described:
    """What the file says of itself: of a quantised one, bytes go in as they are, for its scale and zero point are its
    normalisation. An ArtifactError for a layout or an output that it does not have."""
    if layout == "NCHW":
        raise ArtifactError(f"layout = NCHW is declared, and '{path}' is TensorFlow Lite: NHWC")
    try:
        interpreter = open_interpreter(path, RuntimeOptions())
    except (RuntimeError, ValueError) as error:
        raise adapt.refused("litert", path, error) from error
    images, scores = interpreter.get_input_details(), interpreter.get_output_details()
    if len(images) != 1 or len(scores) != 1 or len(images[0]["shape"]) != 4 or images[0]["shape"][3] != 3:
        shapes = ", ".join(str([*one["shape"]]) for one in (*images, *scores))
        raise ArtifactError(
            f"'{path}' has the inputs and outputs {shapes}", hint="a classifier takes [N, H, W, 3] and gives [N, C]"
        )
    if output not in (None, scores[0]["name"]):
        raise ArtifactError(f"'{path}' has no output '{output}'", hint=nearest(output, [scores[0]["name"]]))
    bytes_in = np.dtype(images[0]["dtype"]) == np.uint8
    kind = f"{np.dtype(images[0]['dtype']).name} in, {np.dtype(scores[0]['dtype']).name} out"
    pressed = np.dtype(scores[0]["dtype"]) in OF_SOFTMAX and tuple(scores[0]["quantization"]) == (
        SOFTMAX_STEP, OF_SOFTMAX[np.dtype(scores[0]["dtype"])],
    )  # fmt: skip
    side = square(path, *(int(length) for length in images[0]["shape"][1:3]))
    return Described(
        format="tflite",
        input=InputSpec(
            name=images[0]["name"], layout="NHWC", dtype="uint8" if bytes_in else "float32", normalised=bytes_in
        ),
        side=side,
        output=OutputSpec(name=scores[0]["name"], kind="probabilities" if pressed else "logits"),
        outputs=int(np.prod(scores[0]["shape"][1:])),
        notes=(f"TensorFlow Lite, {kind}",),
    )


def adopted(path: Path, artifact: Artifact, directory: Path) -> Artifact:
    """The file as an artifact in ``directory``, byte for byte."""
    shutil.copy2(path, directory / "model.tflite")
    return identified(artifact, directory)


def answered(path: Path, artifact: Artifact, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the file itself says of these images, one at a time, in the interpreter's own words: no step of ours but
    the pixels' is between."""
    interpreter = open_interpreter(path, RuntimeOptions())
    image, scores = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    scale, zero = image["quantization"]
    found = []
    for row in range(len(pixels)):
        given = adapt.to_input(pixels[row : row + 1], artifact)
        if given.dtype != image["dtype"]:
            given = np.round(given / scale + zero).astype(image["dtype"])
        interpreter.set_tensor(image["index"], given)
        interpreter.invoke()
        found.append(interpreter.get_tensor(scores["index"]).astype(np.float32))
    step, middle = scores["quantization"]
    return (np.concatenate(found) - middle) * (step or 1)


def baked(artifact: Artifact, directory: Path) -> Artifact:
    """The same: what it is given is prepared on the way, since a TensorFlow Lite graph is not edited here."""
    return adopted(artifact.directory / "model.tflite", artifact, directory)
