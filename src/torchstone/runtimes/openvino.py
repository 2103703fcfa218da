"""OpenVINO: the fastest on x86 CPUs. Its own IR and ONNX files, compiled for one batch size."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torchstone.core.contracts import Runner
from torchstone.core.errors import ArtifactError, nearest
from torchstone.core.privacy import no_telemetry
from torchstone.core.values import Artifact, Format, RuntimeOptions
from torchstone.runtimes import adapt

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Openvino:
    """Opens ``model.xml`` (with its ``model.bin``) and ``model.onnx``.

    The model is compiled for exactly ``options.batch`` images, since a dynamic batch costs 4–40 %; other numbers of
    images are answered in chunks of that size, the last one padded.
    """

    formats: ClassVar[tuple[Format, ...]] = ("openvino", "onnx")
    precisions: ClassVar[tuple[str, ...]] = ("f32", "bf16")
    requires: ClassVar[tuple[str, ...]] = ("openvino",)
    fixed_batch: ClassVar[bool] = True

    def open(self, artifact: Artifact, options: RuntimeOptions) -> Runner:
        adapt.check("openvino", self, artifact, options)
        if options.provider != "cpu":
            raise ArtifactError(
                f"runtime 'openvino' runs on the CPU, not on {options.provider}",
                hint="use onnxruntime or torch for an NVIDIA GPU",
            )
        path = adapt.model_file(artifact, ".xml" if artifact.format == "openvino" else ".onnx")
        try:
            compiled = compile_model(path, artifact, options)
        except RuntimeError as error:
            raise adapt.refused("openvino", path, error) from error
        names = [name for output in compiled.outputs for name in output.names]
        if artifact.output.name not in names:
            raise ArtifactError(
                f"'{path}' has no output called '{artifact.output.name}'", hint=nearest(artifact.output.name, names)
            )
        _check_precision(compiled, options)
        return adapt.runner("openvino", path, artifact, _forward(compiled, artifact.output.name))


def save_halved(source: Path, target: Path) -> None:
    """Write the model at ``source`` with its weights as FP16."""
    openvino = import_openvino()
    openvino.save_model(core().read_model(source), target, compress_to_fp16=True)


def import_openvino() -> Any:
    """The module ``openvino``, without its telemetry."""
    no_telemetry()
    import openvino

    return openvino


@cache
def core() -> Any:
    """This process' one ``openvino.Core``, for good.

    The CPU plugin of each core gives the thread that loads it a stack for signal handlers, and when it goes, puts back
    the one before (OpenVINO 2026.4, for AMX). Of two cores that do not end in the reverse order of their beginning, the
    second puts back what the first has freed, and the next signal with a handler in Python, such as a data loader's,
    ends the process.
    """
    return import_openvino().Core()


@contextmanager
def signal_stack_kept() -> Iterator[None]:
    """This thread's stack for signal handlers is the same afterwards, for libraries that open cores of their own (see
    ``core``)."""
    if sys.platform != "linux":  # OpenVINO changes it nowhere else
        yield
        return
    libc = ctypes.CDLL(None)
    before = ctypes.create_string_buffer(64)  # a stack_t, which has 24 bytes on 64-bit Linux
    known = libc.sigaltstack(None, before) == 0
    try:
        yield
    finally:
        if known:
            libc.sigaltstack(before, None)


def compile_model(path: Path, artifact: Artifact, options: RuntimeOptions, *, counters: bool = False) -> Any:
    """The model, compiled for the options' batch, threads and precision; with ``counters`` it times its nodes."""
    model = core().read_model(path)
    crop = artifact.preprocess.crop
    image = [crop, crop, 3] if artifact.input.layout == "NHWC" else [3, crop, crop]
    model.reshape([options.batch, *image])
    config = {
        "INFERENCE_NUM_THREADS": options.threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        # Unless told, OpenVINO computes in BF16 on CPUs with AMX.
        "INFERENCE_PRECISION_HINT": options.precision,
        # Where threads run is decided outside (taskset, the cgroup, the timing session), not by each model on its own.
        "ENABLE_CPU_PINNING": False,
        "PERF_COUNT": counters,
    }
    return core().compile_model(model, "CPU", config)


def _check_precision(compiled: Any, options: RuntimeOptions) -> None:
    """The hint is only a hint: a CPU without BF16 instructions gets FP32, and no word is said."""
    used = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if used != options.precision:
        raise ArtifactError(
            f"OpenVINO computes in {used} on this CPU, although {options.precision} was asked for",
            hint="bf16 needs AVX512_BF16 or AMX: `torchstone doctor` says what this CPU has",
        )


def _forward(compiled: Any, output: str) -> adapt.Forward:
    """Calls through the request's own tensors: 10 µs less a call than handing arrays to the compiled model."""
    request = compiled.create_infer_request()
    slots: NDArray = request.get_input_tensor().data
    size = len(slots)

    def fill(chunk: NDArray) -> NDArray:
        slots[: len(chunk)] = chunk
        slots[len(chunk) :] = 0
        request.infer()
        return request.get_tensor(output).data[: len(chunk)].copy()

    return adapt.in_chunks(fill, size)
