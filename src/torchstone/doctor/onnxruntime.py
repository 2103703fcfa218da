"""Does ONNX Runtime open a model, and compute it right?"""

from __future__ import annotations

import struct
from typing import ClassVar

import numpy as np

from torchstone.core.values import Finding
from torchstone.doctor import Machine

FLOAT = 1  # TensorProto.DataType


class Onnxruntime:
    """One real session over a model of one convolution, written byte by byte: neither torch nor onnx is needed."""

    requires: ClassVar[tuple[str, ...]] = ("onnxruntime",)

    def run(self, context: Machine) -> list[Finding]:
        findings = _overlapping(context)
        try:
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            options.log_severity_level = 3  # errors
            session = onnxruntime.InferenceSession(one_convolution(), options, providers=["CPUExecutionProvider"])
            result = np.asarray(session.run(None, {"x": np.ones((1, 1, 8, 8), np.float32)})[0])
            providers = onnxruntime.get_available_providers()
        except Exception as error:  # whatever a broken build raises is the finding
            return [*findings, _broken(f"cannot run one convolution: {type(error).__name__}: {error}")]
        if result.shape != (1, 1, 6, 6) or not (result == 9).all():
            return [*findings, _broken(f"computes {result.ravel()[0]} where the answer of a convolution is 9")]
        return [
            *findings,
            Finding(
                check="onnxruntime",
                severity="info",
                message=f"ONNX Runtime {onnxruntime.__version__} opened a model of 1 operator and computed it right; "
                f"providers: {', '.join(providers)}",
                evidence={"version": onnxruntime.__version__, "providers": providers},
            ),
        ]


def _overlapping(context: Machine) -> list[Finding]:
    """Several ONNX Runtime distributions write into the same folder; the last one installed wins, in parts."""
    there = sorted({package.name for package in context.packages if package.name.startswith("onnxruntime")} & VARIANTS)
    if len(there) < 2:
        return []
    return [
        Finding(
            check="onnxruntime",
            severity="error",
            message=f"{len(there)} distributions share the one folder 'onnxruntime': {', '.join(there)}; "
            "files of both are mixed there",
            hint=f"pip uninstall -y {' '.join(there)} && pip install onnxruntime",
            evidence={"distributions": there},
        )
    ]


VARIANTS = {"onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml", "onnxruntime-training"}


def _broken(what: str) -> Finding:
    return Finding(
        check="onnxruntime",
        severity="error",
        message=f"ONNX Runtime is installed but {what}",
        hint="pip install --force-reinstall --no-cache-dir onnxruntime",
    )


def one_convolution() -> bytes:
    """An ONNX model (opset 13) that convolves float32[1, 1, 8, 8] with a 3 × 3 kernel of ones, as protocol buffers.

    The field numbers are those of onnx.proto.
    """
    weight = _varints(1, 1, 1, 3, 3) + _varints(2, FLOAT) + _bytes(8, b"w") + _bytes(9, struct.pack("<9f", *[1.0] * 9))
    node = _bytes(1, b"x") + _bytes(1, b"w") + _bytes(2, b"y") + _bytes(4, b"Conv")
    graph = (
        _bytes(1, node)
        + _bytes(2, b"one_convolution")
        + _bytes(5, weight)
        + _bytes(11, _tensor(b"x", 1, 1, 8, 8))
        + _bytes(12, _tensor(b"y", 1, 1, 6, 6))
    )
    return _varints(1, 8) + _bytes(7, graph) + _bytes(8, _varints(2, 13))


def _tensor(name: bytes, *shape: int) -> bytes:
    """ValueInfoProto of a float32 tensor."""
    sizes = b"".join(_bytes(1, _varints(1, size)) for size in shape)
    return _bytes(1, name) + _bytes(2, _bytes(1, _varints(1, FLOAT) + _bytes(2, sizes)))


def _varints(field: int, *values: int) -> bytes:
    return b"".join(bytes([field << 3]) + _varint(value) for value in values)


def _bytes(field: int, content: bytes) -> bytes:
    return bytes([field << 3 | 2]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    groups = []
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    return bytes([*groups, value])
