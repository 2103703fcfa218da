"""What a frozen network makes of each image before its last layer: one vector an image, computed by the fastest runtime
that is installed. The audit compares such vectors; a probe trains a head on them.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from torchstone.core import files, machine
from torchstone.core.errors import StorageError
from torchstone.core.registry import missing_packages

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

BATCH = 16
"""Images the network sees at once: more gains nothing on a CPU."""

Forward = Callable[["NDArray[np.uint8]"], "NDArray[np.float32]"]
"""uint8[n, side, side, 3], n ≤ BATCH → float32[n, d]."""


def arithmetic(precision: str = "auto") -> str:
    """Runtime and precision, such as ``openvino bf16``: vectors that are compared are all made by the same. ``auto`` is
    BF16 where the processor multiplies it natively."""
    runtime = "torch" if missing_packages(("openvino",)) else "openvino"
    # OpenVINO takes BF16 as a hint, and computes in float32 where the processor has none.
    return f"{runtime} {'bf16' if machine.native_bf16() and precision in ('auto', 'bf16') else 'f32'}"


def take_head(network: nn.Module) -> nn.Module:
    """Remove the layer that gives the logits: from now on ``network`` gives that layer's input. Returns the layer, for
    ``network.set_submodule(zoo.head(network)[0], layer)``, where the name was asked for before."""
    from torch import nn

    from torchstone.models import zoo

    name, layer = zoo.head(network)
    network.set_submodule(name, nn.Identity())
    return layer


def opened(module: Callable[[], nn.Module], side: int, how: str, place: Path | None = None) -> Forward:
    """The network for batches of ``BATCH`` images on all usable cores, in the runtime and precision ``how``
    (``arithmetic``).

    ``module`` makes the network, uint8[n, side, side, 3] → float32[n, d], in eval mode. With ``place``, a directory,
    OpenVINO's form of it is kept there, and a later call does not ask for the module: converting it takes ten times as
    long as opening it, most of it the import of timm. Raises what OpenVINO raises for a network that it does not take.
    """
    runtime, precision = how.split()
    return in_torch(module(), precision) if runtime == "torch" else _in_openvino(module, side, precision, place)


def in_torch(module: nn.Module, precision: str, device: str = "cpu") -> Forward:
    """The same in torch, also on a GPU."""
    import torch

    torch.set_num_threads(machine.usable_cores())
    module = module.to(device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            return module(torch.from_numpy(batch).to(device)).float().cpu().numpy()

    return forward


def _in_openvino(module: Callable[[], nn.Module], side: int, precision: str, place: Path | None) -> Forward:
    """Compiled for whole batches: a dynamic batch costs 4–40 %."""
    from torchstone.runtimes.openvino import core, import_openvino

    openvino = import_openvino()
    if place is None:
        model = _converted(module(), side)
    else:
        with files.alone(place.with_suffix(".lock"), "converting the same network"):  # all data sets share it
            if not (place / "model.xml").exists():
                with files.whole_directory(place) as partial:
                    openvino.save_model(_converted(module(), side), partial / "model.xml", compress_to_fp16=False)
        model = core().read_model(place / "model.xml")
    model.reshape([BATCH, side, side, 3])
    config = {
        "INFERENCE_NUM_THREADS": machine.usable_cores(),
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": precision,
        "ENABLE_CPU_PINNING": False,
    }
    request = core().compile_model(model, "CPU", config).create_infer_request()
    slots = request.get_input_tensor().data

    def forward(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        slots[: len(batch)] = batch
        request.infer()
        return request.get_output_tensor().data[: len(batch)].copy()  # the next call overwrites it

    return forward


def _converted(module: nn.Module, side: int) -> Any:
    import torch

    from torchstone.runtimes.openvino import import_openvino

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's tracer, about itself
        example = torch.zeros(1, side, side, 3, dtype=torch.uint8)
        with torch.inference_mode():  # traced here: OpenVINO would trace it a second time, to compare
            traced = torch.jit.trace(module.eval(), example, strict=False, check_trace=False)
        return import_openvino().convert_model(traced, example_input=example)


def stored(path: Path, shape: tuple[int, int]) -> NDArray[np.float32] | None:
    """The vectors at ``path``, mapped from the file and not in memory, or None where there are none of that shape."""
    try:
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    except (FileNotFoundError, ValueError, EOFError):
        return None
    return vectors if vectors.shape == shape and vectors.dtype == np.float32 else None


def write(
    path: Path,
    shape: tuple[int, int],
    vectors_from: Callable[[int], Iterable[NDArray[np.float32]]],
    *,
    unit: int = 1,
    hint: str = "free some space",
) -> None:
    """Write ``path``, beside at first; vectors that an earlier attempt left there are kept.

    ``vectors_from(row)`` gives the vectors from that row on, some at a time; ``row`` is a multiple of ``unit``. Raises
    a StorageError, with this ``hint``, where the disk has too little room.
    """
    needed, free = 4 * shape[0] * shape[1], shutil.disk_usage(path.parent).free
    partial = path.with_suffix(".partial")
    if needed > free:
        raise StorageError(
            f"the features need {needed / 1e6:,.0f} MB at '{path.parent}', and {free / 1e6:,.0f} MB are free",
            hint=hint,
        )
    blocks = vectors_from(_resume(partial, shape, unit))
    with partial.open("ab") as file:
        for block in blocks:
            file.write(np.ascontiguousarray(block, np.float32).data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _resume(partial: Path, shape: tuple[int, int], unit: int) -> int:
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
    done = (partial.stat().st_size - len(header)) // row // unit * unit
    os.truncate(partial, len(header) + done * row)
    return done


def _header(shape: tuple[int, int]) -> bytes:
    buffer = BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return buffer.getvalue()
