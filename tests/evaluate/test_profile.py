from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from torchstone.core.contracts import Operator
from torchstone.core.registry import profilers
from torchstone.core.values import Candidate, RuntimeOptions
from torchstone.evaluate import advice, graphs, peaks
from torchstone.evaluate.peaks import Peaks
from torchstone.evaluate.profile import OUTSIDE, Profile, profile
from torchstone.evaluate.relative import relative

CONVOLUTIONS = 28 * 28 * 6 * 75 + 10 * 10 * 16 * 150
LENET5 = CONVOLUTIONS + 400 * 120 + 120 * 84 + 84 * 10
"""MACs of LeNet-5 for three channels and ten classes."""
PEAKS = Peaks(threads=1, gflops={"f32": 100.0, "bf16": 200.0, "int8": 400.0}, memory=10.0, cache=80.0)


def made(
    *operators: Operator, runtime: str = "openvino", call_ms: float | None = None, machine: Peaks = PEAKS
) -> Profile:
    """A profile of these operators."""
    return Profile(
        model="m", architecture="a", runtime=runtime, precision="f32", threads=1, batch=1, crop=32,
        call_ms=call_ms or sum(one.ms for one in operators), operators=operators, peaks=machine,
    )  # fmt: skip


def operator(name: str = "conv", kind: str = "Convolution", ms: float = 1.0, **more: Any) -> Operator:
    """By default a convolution that computes at 80 of 100 GFLOP/s and moves 1 MB."""
    usual = {"layer": name, "macs": 40_000_000, "bytes": 1_000_000, "precision": "f32"}
    return Operator(name=name, kind=kind, ms=ms, **{**usual, **more})


HEALTHY = [operator(f"conv{number}", precision="int8", macs=150_000_000) for number in range(6)]
"""Six layers alike, near the peak of the fastest arithmetic."""


@pytest.mark.parametrize("name", ["torch@torch", "onnx@onnxruntime", "onnx@openvino", "openvino@openvino"])
def test_every_runtime_finds_the_operators_of_a_network(candidates: dict[str, Candidate], name: str) -> None:
    candidate = candidates[name]
    pixels = np.zeros((2, 32, 32, 3), np.uint8)
    options = RuntimeOptions(threads=1, batch=2)
    found = profilers.ready(candidate.runtime).profile(candidate.artifact, options, pixels, 5)
    convolutions = [one for one in found if "conv" in one.kind.lower()]
    assert len(convolutions) == 2
    assert all(one.ms >= 0 for one in found)
    assert all(one.ms > 0 and one.precision == "f32" for one in convolutions)
    products = sum(one.macs for one in found) - sum(one.macs for one in convolutions)
    assert products == 2 * (LENET5 - CONVOLUTIONS)
    if candidate.runtime != "onnxruntime":  # whose blocked layout computes 16 channels where there are 6
        assert sum(one.macs for one in convolutions) == 2 * CONVOLUTIONS
    assert len({one.name for one in found}) == len(found)
    assert {"0", "3"} <= {one.layer for one in found} or {"1", "4"} <= {one.layer for one in found}
    assert all(one.bytes > 0 for one in found)


def test_a_profile_adds_up(candidates: dict[str, Candidate]) -> None:
    found = profile(candidates["torch@torch"])
    assert found.macs == LENET5
    assert sum(one.ms for one in found.kinds) == pytest.approx(found.ms)
    assert sum(one.share for one in found.layers) == pytest.approx(1)
    assert found.kinds == sorted(found.kinds, key=lambda one: -one.ms)
    assert 0 < found.convolutions < 1
    assert found.call_ms > 0
    assert found.summary()["macs"] == LENET5
    assert OUTSIDE in {one.name for one in found.layers}  # the normalisation


def test_bf16_shows_in_the_operators(candidates: dict[str, Candidate]) -> None:
    candidate = candidates["torch@torch"]
    options = RuntimeOptions(precision="bf16")
    found = profilers.ready("torch").profile(candidate.artifact, options, np.zeros((1, 32, 32, 3), np.uint8), 2)
    assert {one.precision for one in found if one.macs} == {"bf16"}


@pytest.mark.openvino
@pytest.mark.parametrize("chain", ["int8@onnxruntime", "int8@openvino"])
def test_int8_shows_in_the_operators(exported: dict[str, Candidate], chain: str) -> None:
    candidate = exported[chain]
    side = candidate.artifact.preprocess.crop
    pixels = np.zeros((1, side, side, 3), np.uint8)
    found = profilers.ready(candidate.runtime).profile(candidate.artifact, candidate.options, pixels, 3)
    convolutions = [one for one in found if "conv" in one.kind.lower() and one.macs]
    assert convolutions
    assert {one.precision for one in convolutions} == {"int8"}
    assert sum(one.macs for one in found) == LENET5, "weights that the runtime packed count, too"


def test_the_machine_is_faster_at_some_things() -> None:
    found = peaks.measure(1)
    assert found.gflops["f32"] > 1
    assert found.memory > 0.1
    assert found.cache > found.memory / 4
    assert found.threads == 1


def test_the_roof_is_the_lower_of_two_lines() -> None:
    assert PEAKS.roof("f32", 5.0) == 50.0
    assert PEAKS.roof("f32", 50.0) == 100.0
    assert PEAKS.roof("int8", 50.0) == 400.0
    assert PEAKS.roof("f16", 50.0) == 100.0, "a precision that was not measured counts as f32"


def test_the_better_of_two_measurements() -> None:
    slow = Peaks(threads=1, gflops={"f32": 50.0, "bf16": 300.0}, memory=20.0, cache=1.0)
    both = PEAKS.better(slow)
    assert both.gflops == {"f32": 100.0, "bf16": 300.0, "int8": 400.0}
    assert (both.memory, both.cache) == (20.0, 80.0)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("/network/blocks/blocks.0/blocks.0.1/conv/Conv", "blocks.0.1.conv"),
        ("/network/network.0/Conv/WithoutBiases", "0"),
        ("fused /network/network.7/Gemm", "7"),
        ("/network/layer1/layer1.0/bn1/act/Relu_output_0_nchwc", "layer1.0.bn1.act"),
        ("/network/network.5/MaxPool_acdb_abcd_/network/network.6/Flatten", "5"),
        ("/Transpose", ""),
        ("ReorderOutput_token_5", ""),
    ],
)
def test_the_module_behind_a_node(name: str, path: str) -> None:
    assert graphs.module_path(name) == path


def test_macs_from_shapes_are_those_of_torch() -> None:
    import torch
    from torch import nn
    from torch.utils.flop_counter import FlopCounterMode

    for groups in (1, 4, 8):
        layer = nn.Conv2d(8, 16, 3, groups=groups)
        with FlopCounterMode(display=False) as counter:
            output = layer(torch.zeros(2, 8, 9, 9))
        macs = counter.get_total_flops() // 2
        assert graphs.convolution_macs(output.shape, layer.weight.shape) == macs
        grouped = [groups, 16 // groups, *layer.weight.shape[1:]]
        assert graphs.convolution_macs(output.shape, grouped) == macs


def hints(*operators: Operator, **more: Any) -> list[str]:
    return [one.message for one in advice.advise(made(*operators, **more))]


def test_a_model_at_its_peak_gets_no_advice() -> None:
    assert hints(*HEALTHY) == []


def test_f32_where_another_arithmetic_is_faster() -> None:
    f32 = [replace(one, precision="f32", macs=40_000_000) for one in HEALTHY]
    (found,) = advice.advise(made(*f32))
    assert "BF16 2.0 times and INT8 4.0 times" in found.message
    assert "int8@openvino" in str(found.hint)
    plain = replace(PEAKS, gflops={"f32": 100.0, "int8": 110.0})
    (found,) = advice.advise(made(*f32, machine=plain))
    assert "no narrower arithmetic" in found.message


def test_eager_overhead_and_what_would_be_fused() -> None:
    (found,) = advice.advise(made(*HEALTHY, runtime="torch", call_ms=12.0))
    assert "50 % of a call lies outside" in found.message
    (found,) = advice.advise(
        made(*HEALTHY, *(operator(f"n{n}", "batch_norm", macs=0) for n in range(2)), runtime="torch")
    )
    assert found.message.startswith("25 %")
    assert hints(*HEALTHY, call_ms=12.0) == [], "what lies outside a graph runtime's operators is not its to save"


def test_memory_bound_layers() -> None:
    thin = [operator(f"fc{number}", "FullyConnected", macs=400_000, ms=0.2) for number in range(4)]
    (found,) = advice.advise(made(*thin, operator("pool", "Pooling", macs=0)))
    assert "too few operations a byte" in found.message
    assert "--batch 8" in str(found.hint)


def test_conversions() -> None:
    (found,) = advice.advise(made(*HEALTHY, operator("r", "Reorder", ms=2.0, macs=0)))
    assert found.message.startswith("25 %")
    assert "MODEL@onnxruntime" in str(found.hint)


def test_layers_that_int8_left_out() -> None:
    left = [operator(f"left{number}", ms=1.5) for number in range(2)]
    (found,) = advice.advise(made(*HEALTHY, *left))
    assert found.message.startswith("2 of 8 convolutions")
    assert found.evidence["layers"] == ["left0", "left1"]


def test_layers_far_below_the_roof() -> None:
    slow = [replace(one, ms=10.0) for one in HEALTHY]
    (found,) = advice.advise(made(*slow))
    assert "less than 25 %" in found.message


def test_a_busy_machine_is_said_and_not_held_against_the_model() -> None:
    slow = [replace(one, ms=10.0) for one in HEALTHY]
    (found,) = advice.advise(replace(made(*slow), processor=0.4))
    assert found.severity == "warning"
    assert "40 %" in found.message


def test_one_layer_that_takes_it_all() -> None:
    large = replace(HEALTHY[0], ms=8.0, macs=1_200_000_000)
    (found,) = advice.advise(made(large, *HEALTHY[1:]))
    assert "'conv0'" in found.message


def test_a_tiny_network_waits_for_its_calls_and_not_for_its_arithmetic() -> None:
    tiny = [operator(f"conv{number}", macs=10_000, bytes=2_000, ms=0.012) for number in range(6)]
    (found,) = advice.advise(made(*tiny))
    assert "6 operators take 12 µs each" in found.message
    assert "2 % of the call" in found.message
    assert "gain little" in str(found.hint)
    _, eager = advice.advise(made(*tiny, runtime="torch", call_ms=0.2))
    assert "a graph runtime" in eager.message
    assert hints(*(replace(one, macs=500_000) for one in tiny)) != [found.message], "it computes for most of its time"


def test_turns_show_who_is_slower_while_the_machine_slows_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that only the two of them move, half again as slowly by the end."""
    now, calls = [0.0], [0]

    def taking(seconds: float) -> None:
        calls[0] += 1
        now[0] += seconds * (1 + calls[0] / 100)

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    found = relative(lambda: taking(0.06), lambda: taking(0.03))
    assert found.ratio == pytest.approx(2.0, rel=0.05)
    assert 60 < found.ms < 90
