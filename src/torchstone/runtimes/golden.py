"""Golden images: a few original files with the logits that the model gave for them where it was made.

Who opens the model elsewhere checks itself on them first. ``DIRECTORY/golden/`` holds ``00.jpg``…, ``golden.json`` and
``logits.npy`` (float32[n, C]).
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from torchstone.core import files, registry
from torchstone.core.contracts import ImageSet, Runner
from torchstone.core.errors import ArtifactError
from torchstone.core.seeding import sample_rows
from torchstone.core.values import Candidate, Preprocess
from torchstone.runtimes import open_candidate

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCHEMA_VERSION = 1


IMAGES = 8
TOLERANCE = {"f32": 1e-3, "bf16": 0.05, "int8": 0.05}
"""Largest ``difference`` on another machine, by the arithmetic that the model runs in."""


def synthetic(side: int, count: int = IMAGES) -> tuple[list[bytes], list[str]]:
    """PNG files of ``side`` × ``side`` pixels and their names, for a model that comes without images: soft patches of
    colour under a little noise, the same ones everywhere. They show that a model computes here what it computed there,
    and nothing of what it can tell apart."""
    contents = []
    for number in range(count):
        random = np.random.default_rng(number)
        patches = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((side, side))
        pixels = np.asarray(patches).astype(np.int16) + random.integers(-24, 25, (side, side, 3), dtype=np.int16)
        buffer = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
        contents.append(buffer.getvalue())
    return contents, [f"{number}.png" for number in range(count)]


def seal(candidate: Candidate, images: ImageSet) -> None:
    """Give the candidate's artifact directory its golden images: some of ``images``, answered by itself."""
    rows = [int(row) for row in sample_rows(images.labels, IMAGES, "golden")]
    contents, names = [images.encoded(row) for row in rows], [images.items[row] for row in rows]
    artifact = candidate.artifact
    write(artifact.directory, contents, names, artifact.preprocess, open_candidate(candidate), tolerance(candidate))


def copy(source: Path, directory: Path, candidate: Candidate) -> None:
    """Give ``directory`` the golden images of ``source``, with the logits of ``candidate`` as it runs here."""
    names = [item["file"] for item in _header(source)["items"]]
    contents = [_read(source / "golden" / name) for name in names]
    write(directory, contents, names, candidate.artifact.preprocess, open_candidate(candidate), tolerance(candidate))


def tolerance(candidate: Candidate) -> float:
    """What ``difference`` may become for this candidate."""
    integer = any(registry.steps.get(step).integers for step in candidate.artifact.steps)
    return TOLERANCE["int8" if integer else candidate.options.precision]


def write(
    directory: Path,
    contents: Sequence[bytes],
    names: Sequence[str],
    preprocess: Preprocess,
    runner: Runner,
    tolerance: float,
) -> None:
    """Store the encoded images with what ``runner`` answers. ``names`` are the original file names (for the suffix);
    ``tolerance`` is what ``difference`` may become elsewhere."""
    if not contents or len(contents) != len(names):
        raise ValueError(f"{len(contents)} images with {len(names)} names: one name for each of at least one image")
    pixels = prepared(contents, preprocess)
    logits = _answer(runner, pixels)
    place = directory / "golden"
    items = []
    for index, (content, name) in enumerate(zip(contents, names, strict=True)):
        file = f"{index:02d}{PurePath(name).suffix.lower() or '.jpg'}"
        files.write_bytes(place / file, content)
        items.append(
            {
                "file": file,
                "sha256": hashlib.sha256(content).hexdigest(),
                "pixels": _digest(pixels[index]),
                "top1": int(logits[index].argmax()),
            }
        )
    buffer = io.BytesIO()
    np.save(buffer, logits, allow_pickle=False)
    files.write_bytes(place / "logits.npy", buffer.getvalue())
    files.write_json(place / "golden.json", {"schema_version": SCHEMA_VERSION, "tolerance": tolerance, "items": items})


def check(directory: Path, preprocess: Preprocess, runner: Runner) -> None:
    """Let ``runner`` answer the golden images of ``directory``. Raises an ArtifactError that names the image when a
    file was changed, when its pixels come out differently here (decoder, resize), or when the logits do (runtime, CPU).
    """
    header = _header(directory)
    pixels, expected = load_images(directory, preprocess)
    for item, image in zip(header["items"], pixels, strict=True):
        if _digest(image) != item["pixels"]:
            raise ArtifactError(
                f"golden image {item['file']}: its pixels differ from those the model was made with",
                hint=f"decoding and resizing must be those of {preprocess.decoder} {preprocess.decoder_version}",
            )
    logits = _answer(runner, pixels)
    if logits.shape != expected.shape:
        raise ArtifactError(
            f"the golden logits are {[*expected.shape]}, the model gives {[*logits.shape]} (images, classes)",
            hint="do the model and its golden images belong together?",
        )
    for item, here, there in zip(header["items"], logits, expected, strict=True):
        found = difference(here, there)
        if not found <= header["tolerance"]:  # NaN must not pass
            raise ArtifactError(
                f"golden image {item['file']}: its logits differ by {found:.2g} from the stored ones "
                f"(relative; tolerance {header['tolerance']:.2g}); top-1 is {int(here.argmax())}, was {item['top1']}",
                hint="this runtime or CPU does not reproduce the model: use the FP32 one of the same bundle here",
            )


def load_images(directory: Path, preprocess: Preprocess) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The prepared golden images, uint8[n, crop, crop, 3], and their stored logits, float32[n, C].

    Raises an ArtifactError where a file is missing or is not the one that was stored.
    """
    place = directory / "golden"
    header = _header(directory)
    contents = []
    for item in header["items"]:
        path = place / item["file"]
        content = _read(path)
        if hashlib.sha256(content).hexdigest() != item["sha256"]:
            raise ArtifactError(
                f"golden image '{path}' is not the file that was stored: its sha256 differs",
                hint="copy the bundle again, byte by byte",
            )
        contents.append(content)
    try:
        logits = np.load(io.BytesIO(_read(place / "logits.npy")), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ArtifactError(
            f"'{place / 'logits.npy'}' is damaged: {error}", hint="copy the bundle again, byte by byte"
        ) from None
    if logits.ndim != 2 or logits.dtype != np.float32 or len(logits) != len(contents):
        raise ArtifactError(
            f"'{place / 'logits.npy'}' holds {logits.dtype}{[*logits.shape]} for {len(contents)} images",
            hint="copy the bundle again, byte by byte",
        )
    return prepared(contents, preprocess), logits


def difference(here: NDArray[np.float32], there: NDArray[np.float32]) -> float:
    """max|a − b| / max|b|: how far two answers are apart, relative to the largest logit."""
    scale = float(np.abs(there).max())
    return float(np.abs(here - there).max()) / (scale or 1.0)


def _header(directory: Path) -> dict[str, Any]:
    path = directory / "golden" / "golden.json"
    header = files.read_json(path)
    try:
        if header["schema_version"] != SCHEMA_VERSION:
            raise ArtifactError(
                f"'{path}' has schema version {header['schema_version']}, this torchstone reads {SCHEMA_VERSION}",
                hint="use the torchstone that made the bundle",
            )
        float(header["tolerance"])
        if not header["items"] or not all(
            {"file", "sha256", "pixels", "top1"} <= set(item) for item in header["items"]
        ):
            raise KeyError("items")
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"'{path}' does not describe golden images: {error!r}", hint="copy the bundle again"
        ) from None
    return header


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ArtifactError(f"'{path}' is missing", hint="copy the bundle again, with all its files") from None


def prepared(contents: Sequence[bytes], preprocess: Preprocess) -> NDArray[np.uint8]:
    from torchstone.data.preprocess import prepare

    return np.stack([prepare(content, preprocess) for content in contents])


def _answer(runner: Runner, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """One image at a time, as a server first sees them; so that an image's logits never depend on its neighbours."""
    return np.concatenate([runner(pixels[row : row + 1])["logits"] for row in range(len(pixels))])


def _digest(pixels: NDArray[np.uint8]) -> str:
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()
