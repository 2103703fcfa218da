"""Eager PyTorch, operator by operator: every call that reaches a kernel is timed, with the module it came from.

``torch.profiler`` is not used: it knows no output shapes, and its tracer writes to stderr where there is no GPU.
"""

from __future__ import annotations

import statistics
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from torchstone.core.contracts import Operator
from torchstone.core.errors import ConfigError
from torchstone.core.values import Artifact, RuntimeOptions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Torch:
    """Times the operators as the modules call them, batch norm and activations each alone. A few microseconds of each
    are the call from Python."""

    requires: ClassVar[tuple[str, ...]] = ("torch", "safetensors")

    def profile(
        self, artifact: Artifact, options: RuntimeOptions, pixels: NDArray[np.uint8], calls: int
    ) -> list[Operator]:
        import torch

        from torchstone.models import store
        from torchstone.runtimes.torch import forward_of

        if options.provider != "cpu":
            raise ConfigError("only the CPU can be profiled", hint="open it with the provider cpu")
        module = store.load(artifact).to(memory_format=torch.channels_last)
        forward = forward_of(module, options)
        forward(pixels)
        counted = _one_pass(module, forward, pixels, count=True)
        passes = [_one_pass(module, forward, pixels) for _ in range(calls)]
        return [
            replace(one, ms=statistics.median(other.ms for other in same))
            for one, same in zip(counted, zip(*passes, strict=True), strict=True)
        ]


def _one_pass(module: Any, forward: Any, pixels: NDArray[np.uint8], *, count: bool = False) -> list[Operator]:
    """The operators of one call. To ``count`` MACs, what computes without changing its arguments is computed again, so
    that its time is not to be used."""
    import time

    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves
    from torch.utils.flop_counter import FlopCounterMode

    found: list[Operator] = []
    inside: list[str] = []

    class Clock(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            begin = time.perf_counter()
            result = func(*args, **kwargs)
            ms = 1000 * (time.perf_counter() - begin)
            kind = func.overloadpacket.__name__
            read = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
            written = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
            if not kind.endswith("_") and _is_view(written, read):
                return result
            macs = 0
            if count and not kind.endswith("_"):
                with FlopCounterMode(display=False) as counter:
                    func(*args, **kwargs)
                macs = counter.get_total_flops() // 2
            layer = inside[-1] if inside else ""
            found.append(
                Operator(
                    name=f"{len(found)} {layer or kind}",
                    layer=layer,
                    kind=kind,
                    ms=ms,
                    macs=macs,
                    bytes=sum(tensor.nbytes for tensor in (*read, *written)),
                    precision=_precision(read),
                )
            )
            return result

    def enter(name: str) -> Any:
        return lambda *_: inside.append(name)

    def leave(*_: Any) -> None:
        inside.pop()

    hooks = []
    for name, child in module.network.named_modules():
        hooks.append(child.register_forward_pre_hook(enter(name)))
        hooks.append(child.register_forward_hook(leave))
    try:
        with Clock():
            forward(pixels)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _is_view(written: list[Any], read: list[Any]) -> bool:
    """Whether an operator only gave its argument another shape, or nothing but its argument back."""
    kept = {tensor.untyped_storage().data_ptr() for tensor in read}
    return bool(written) and all(tensor.untyped_storage().data_ptr() in kept for tensor in written)


def _precision(read: list[Any]) -> str:
    import torch

    halves = {torch.bfloat16: "bf16", torch.float16: "f16"}
    return next((halves[tensor.dtype] for tensor in read if tensor.dtype in halves), "f32")
