"""In which arithmetic a training computes where nobody says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from torchstone.core import machine
from torchstone.evaluate import peaks
from torchstone.train import device

has_bf16 = pytest.mark.skipif(not machine.native_bf16(), reason="this CPU has no BF16 instructions")


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    peaks.bf16_pays.cache_clear()
    yield
    peaks.bf16_pays.cache_clear()


def repeating(kind: torch.dtype, times: int) -> Callable[[int], Callable[[], object]]:
    """Multiplies as often: a processor that is so much slower."""

    def make(side: int) -> Callable[[], object]:
        square = torch.ones(side, side, dtype=kind)
        return lambda: [square @ square for _ in range(times)]

    return make


@pytest.mark.parametrize(("f32", "bf16", "expected"), [(1, 4, "f32"), (4, 1, "bf16"), (1, 1, "bf16")])
def test_auto_is_bf16_where_its_products_are_not_much_slower(
    monkeypatch: pytest.MonkeyPatch, f32: int, bf16: int, expected: str
) -> None:
    products = {"f32": repeating(torch.float32, f32), "bf16": repeating(torch.float32, bf16)}
    monkeypatch.setattr(machine, "native_bf16", lambda: True)
    monkeypatch.setattr(peaks, "_multiplications", lambda: products)
    threads = torch.get_num_threads()
    device.use("cpu")
    assert device.arithmetic("auto") == ("cpu", expected)
    assert torch.get_num_threads() == threads


def test_auto_is_float32_where_the_processor_has_no_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "native_bf16", lambda: False)
    device.use("cpu")
    assert device.arithmetic("auto") == ("cpu", "f32")


@has_bf16
def test_this_machine_gives_the_same_answer_each_time() -> None:
    found = set()
    for _ in range(3):
        peaks.bf16_pays.cache_clear()
        found.add(peaks.bf16_pays())
    assert len(found) == 1


def test_what_is_asked_for_is_what_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "native_bf16", lambda: False)
    device.use("cpu")
    assert device.arithmetic("bf16") == ("cpu", "bf16")
