"""What the graph runtimes' profiles have in common: operators read from names and shapes."""

from __future__ import annotations

import math
from collections.abc import Sequence

INTEGERS = frozenset({"int8", "uint8", "i8", "u8"})
HALVES = {"bfloat16": "bf16", "bf16": "bf16", "float16": "f16", "f16": "f16"}
WIDTHS = {
    "float": 4, "f32": 4, "int32": 4, "i32": 4, "uint32": 4, "u32": 4, "double": 8, "f64": 8, "int64": 8, "i64": 8,
    "uint64": 8, "u64": 8, "float16": 2, "f16": 2, "bfloat16": 2, "bf16": 2,
}  # fmt: skip
"""Bytes of an element by the runtimes' names of types; all others are bytes themselves."""


def precision(type_name: str) -> str:
    """The arithmetic that goes with a type of weights or of execution."""
    return "int8" if type_name in INTEGERS else HALVES.get(type_name, "f32")


def size(type_name: str, shape: Sequence[int]) -> int:
    """Bytes of a tensor."""
    return math.prod(shape) * WIDTHS.get(type_name, 1)


def convolution_macs(output: Sequence[int], weight: Sequence[int]) -> int:
    """MACs of a convolution from the shapes of its output, [N, C, …], and of its weight, [C, C_in / groups, …] or
    [groups, C / groups, C_in / groups, …]."""
    return math.prod(output) * math.prod(weight) // output[1]


def product_macs(output: Sequence[int], left: Sequence[int]) -> int:
    """MACs of a matrix product whose left factor, [..., n, k], is not transposed."""
    return math.prod(output) * left[-1]


def module_path(name: str) -> str:
    """The module behind a node of a traced ONNX graph:
    ``/network/blocks/blocks.0/blocks.0.1/conv/Conv`` → ``blocks.0.1.conv``. Empty for nodes of no module.

    The exporter writes the way through the modules, in which the children of a list repeat its name.
    """
    name = name.removeprefix("fused ")  # ONNX Runtime's word for a product with its activation
    if not name.startswith("/network/"):
        return ""
    name = name[: name.find("/network/", 1)] if "/network/" in name[1:] else name  # a conversion between two nodes
    parts = name.removesuffix("/WithoutBiases").strip("/").split("/")[:-1]
    path: list[str] = []
    for part in parts:
        if path and part.startswith(path[-1] + "."):
            path.pop()
        path.append(part)
    joined = ".".join(path)
    return joined.removeprefix("network").removeprefix(".")
