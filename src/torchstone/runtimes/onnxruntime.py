"""ONNX Runtime: the portable one. FP32 and QDQ INT8 on the CPU; CUDA where its GPU build is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from torchstone.core.contracts import Runner
from torchstone.core.errors import ArtifactError, nearest
from torchstone.core.values import Artifact, Format, RuntimeOptions
from torchstone.runtimes import adapt

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
