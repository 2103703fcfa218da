"""ONNX Runtime: the portable one. FP32 and QDQ INT8 on the CPU; CUDA where its GPU build is installed."""

from __future__ import annotations

import os
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, ClassVar

from torchstone.core.contracts import Runner
from torchstone.core.errors import ArtifactError, ConfigError, nearest
from torchstone.core.values import Artifact, Format, RuntimeOptions
from torchstone.runtimes import adapt

if TYPE_CHECKING:
    from numpy.typing import NDArray

OPERATORS = "torchstone.onnx_operators"
"""Entry points of packages that bring ONNX operators of their own. Each names a function without parameters that gives
the path of a library built for ONNX Runtime, such as ``onnxruntime_extensions:get_library_path``."""
OPERATORS_VARIABLE = "TORCHSTONE_ONNX_OPERATORS"
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


_arena_bounded = False


class Onnxruntime:
    """Opens ``model.onnx``. Threads are set by number, because in a container ONNX Runtime counts the host's."""

    formats: ClassVar[tuple[Format, ...]] = ("onnx",)
    precisions: ClassVar[tuple[str, ...]] = ("f32",)
    requires: ClassVar[tuple[str, ...]] = ("onnxruntime",)
    fixed_batch: ClassVar[bool] = False

    def open(self, artifact: Artifact, options: RuntimeOptions) -> Runner:
        adapt.check("onnxruntime", self, artifact, options)
        path = adapt.model_file(artifact, ".onnx")
        session = open_session(path, options)
        names = [output.name for output in session.get_outputs()]
        if artifact.output.name not in names:
            raise ArtifactError(
                f"'{path}' has no output called '{artifact.output.name}'", hint=nearest(artifact.output.name, names)
            )
        image = session.get_inputs()[0].name

        def forward(batch: NDArray) -> NDArray:
            return session.run([artifact.output.name], {image: batch})[0]

        return adapt.runner("onnxruntime", path, artifact, forward)


@cache
def operator_libraries() -> tuple[str, ...]:
    """Libraries of ONNX operators that the user has registered: by entry points of installed packages, and by an
    environment variable of paths. A bundle cannot name one: it would be code that runs by being opened."""
    found = []
    for point in entry_points(group=OPERATORS):
        try:
            found.append(str(point.load()()))
        except Exception as error:
            raise ConfigError(
                f"the ONNX operators '{point.name}' ({point.value}) cannot be found: {error}",
                hint="the entry point names a function that gives the path of a library",
            ) from error
    given = os.environ.get(OPERATORS_VARIABLE, "")
    return (*found, *(path for path in given.split(os.pathsep) if path))


def bound_arena(limit: int) -> None:
    """Let all sessions that this process opens from now on share one arena of at most ``limit`` bytes, which grows by
    what is asked for: by default each session has its own, and doubles it without an end. What does not fit raises in
    the call that asked for it. Once a process."""
    global _arena_bounded
    if _arena_bounded:
        return
    import onnxruntime

    device = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    config = onnxruntime.OrtArenaCfg({"max_mem": limit, "arena_extend_strategy": 1})
    onnxruntime.create_and_register_allocator(device, config)
    _arena_bounded = True


def open_session(path: Any, options: RuntimeOptions, *, profile: str | None = None, packed: bool = True) -> Any:
    """A session of the options' threads; with ``profile``, a path's beginning, it writes a trace there. Not
    ``packed``, it leaves the weights as they are in the file: slower, but the trace shows them."""
    import onnxruntime

    provider = PROVIDERS[options.provider]
    if provider not in onnxruntime.get_available_providers():
        raise ArtifactError(
            f"this ONNX Runtime has no {provider}", hint="pip install onnxruntime-gpu, or open it with the provider cpu"
        )
    config = onnxruntime.SessionOptions()
    config.intra_op_num_threads = options.threads
    config.inter_op_num_threads = 1
    # A thread that spins while it waits takes the core from whatever is measured or served beside it.
    config.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not packed:
        config.add_session_config_entry("session.disable_prepacking", "1")
    if profile is not None:
        config.enable_profiling = True
        config.profile_file_prefix = profile
    if _arena_bounded:
        config.add_session_config_entry("session.use_env_allocators", "1")
    for library in operator_libraries():
        try:
            config.register_custom_ops_library(library)
        except Exception as error:
            raise ArtifactError(
                f"ONNX Runtime does not take the operators of '{library}': {' '.join(str(error).split())[:300]}",
                hint=f"it is named by an installed package's entry point '{OPERATORS}', or by {OPERATORS_VARIABLE}",
            ) from error
    config.log_severity_level = 4  # what goes wrong comes as an exception; the rest would be noise on stderr
    try:
        session = onnxruntime.InferenceSession(str(path), config, providers=[provider])
    except Exception as error:
        raise adapt.refused("onnxruntime", path, error) from error
    if session.get_providers()[0] != provider:
        raise ArtifactError(
            f"ONNX Runtime fell back from {provider} to {session.get_providers()[0]}",
            hint="is there a GPU, and do its driver and CUDA libraries fit this onnxruntime-gpu?",
        )
    return session
