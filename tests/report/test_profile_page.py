from __future__ import annotations

from torchstone.core.contracts import Operator
from torchstone.evaluate import advice
from torchstone.evaluate.peaks import Peaks
from torchstone.evaluate.profile import Profile
from torchstone.evaluate.relative import Options, Relative, Row
from torchstone.models.families import members
from torchstone.report import families_page, profile_page


def operator(number: int, kind: str, macs: int) -> Operator:
    return Operator(
        name=f"{kind}{number}", layer=f"layer<{number}>", kind=kind, ms=1.0 + number, macs=macs, bytes=1_000_000,
        precision="f32",
    )  # fmt: skip


def test_a_profile_shows_every_operator_that_computes() -> None:
    found = Profile(
        model="m@openvino", architecture="lenet5", runtime="openvino", precision="f32", threads=1, batch=1, crop=32,
        call_ms=30.0, operators=[*(operator(n, "Convolution", 10**8) for n in range(5)), operator(5, "Pooling", 0)],
        peaks=Peaks(threads=1, gflops={"f32": 100.0, "int8": 400.0}, memory=10.0, cache=80.0),
    )  # fmt: skip
    page = profile_page.render(found, advice.advise(found))
    wide = page[page.index('"wide-only"') : page.index('"narrow-only"')]
    assert wide.count('id="roofline-wide-PathCollection') == 5
    assert "layer&lt;3&gt;" in page
    assert "layer<3>" not in page
    assert "memory 10 GB/s" in page
    assert "int8@openvino" in page
    assert "http" not in page.replace("http-equiv", "")


def test_a_model_without_anything_to_compute_has_a_page() -> None:
    found = Profile(
        model="m", architecture="a", runtime="torch", precision="f32", threads=1, batch=1, crop=8, call_ms=1.0,
        operators=[operator(0, "relu", 0)], peaks=Peaks(threads=1, gflops={"f32": 9.0}, memory=1.0, cache=2.0),
    )  # fmt: skip
    assert "By layer" in profile_page.render(found, [])


def test_the_families_beside_each_other() -> None:
    rows = [Row(member=one, speed=Relative(ms=one.macs / 1e8, ratio=one.macs / 1.8e9)) for one in members()]
    page = families_page.render(rows, Options())
    assert page.count("<code>") == len(rows)
    assert "Tan and Le 2019" in page
    assert "18.1" in page  # resnet18's milliseconds
    narrow = page[page.index('id="families-narrow') :]
    assert "MobileNetV3" in narrow


def test_one_network_without_a_measurement() -> None:
    page = families_page.render([Row(member=one) for one in members("lenet5")], None)
    assert "Not timed" in page
    assert "families-wide" not in page
