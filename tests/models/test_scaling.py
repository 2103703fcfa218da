from __future__ import annotations

import pytest
import torch

from torchstone.core.errors import ConfigError
from torchstone.models import scaling, zoo
from torchstone.models.families import members

PAPER = {
    "b0": (5.3, 0.39), "b1": (7.8, 0.70), "b2": (9.2, 1.0), "b3": (12, 1.8),
    "b4": (19, 4.2), "b5": (30, 9.9), "b6": (43, 19), "b7": (66, 37),
}  # fmt: skip
"""Table 2 of the paper: millions of parameters, 10⁹ multiply-accumulates."""
QUICK = ("b0", "b3")


@pytest.mark.parametrize(("name", "phi"), [("b0", 0), ("b1", 0.5), ("b2", 1), ("b3", 2)])
def test_the_formula_gives_the_first_published_networks(name: str, phi: float) -> None:
    depth, width, resolution = scaling.compound(phi)
    assert (round(depth, 1), round(width, 1), resolution) == scaling.PUBLISHED[name]


def test_the_formula_does_not_give_the_largest() -> None:
    """What the docstring says: no φ explains depth, width and resolution of B7 together."""
    tried = [scaling.compound(step / 100) for step in range(500, 800)]
    wanted = scaling.PUBLISHED["b7"]
    assert not any(round(depth, 1) == wanted.depth and round(width, 1) == wanted.width for depth, width, _ in tried)


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(n, marks=pytest.mark.slow) for n in PAPER if n not in QUICK)])
def test_the_published_coefficients_give_the_published_network(name: str) -> None:
    with torch.device("meta"):
        ours = scaling.build(scaling.PUBLISHED[name], classes=1000)
        theirs = zoo.build(f"timm:efficientnet_{name}", classes=1000)
    shapes = {key: tensor.shape for key, tensor in theirs.state_dict().items()}
    assert {key: tensor.shape for key, tensor in ours.state_dict().items()} == shapes
    assert zoo.parameters(ours) / 1e6 == pytest.approx(PAPER[name][0], rel=0.02)


@pytest.mark.parametrize("name", PAPER)
def test_the_published_networks_cost_what_the_paper_says(name: str) -> None:
    (one,) = members(f"tf_efficientnet_{name}")
    parameters, macs = PAPER[name]
    assert one.crop == scaling.PUBLISHED[name].resolution
    assert one.parameters / 1e6 == pytest.approx(parameters, rel=0.02)
    assert one.macs / 1e9 == pytest.approx(macs, rel=0.05)


def test_channels_are_rounded_to_eight_and_never_lose_a_tenth() -> None:
    for base in (16, 24, 40, 80, 112, 192, 320):
        for step in range(50, 250):
            rounded = scaling.channels(base, step / 100)
            assert rounded % 8 == 0
            assert rounded >= 0.9 * base * step / 100


def test_whole_numbers_of_blocks_stay_what_they_are() -> None:
    assert [scaling.repeats(3, depth) for depth in (1.0, 1.1, 4 / 3, 2.0)] == [3, 4, 4, 6]
    assert scaling.repeats(10, 1.1) == 11  # 11.000000000000002 in floating point


def test_a_network_between_the_published_ones() -> None:
    assert zoo.resolve("efficientnet:0.50") == "efficientnet:0.5"
    assert zoo.native_input("efficientnet:0.5").crop == 240
    with torch.device("meta"):
        sizes = [zoo.parameters(zoo.build(f"efficientnet:{phi}", classes=10)) for phi in (0, 0.5, 1)]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == 3
    network = zoo.build("efficientnet:0", classes=7, channels=1, small_input=True).eval()
    assert network(torch.zeros(1, 1, 32, 32)).shape == (1, 7)


@pytest.mark.parametrize("name", ["efficientnet:b0", "efficientnet:-1", "efficientnet:9", "efficientnet:nan"])
def test_what_is_no_phi_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="from 0 to 8"):
        zoo.resolve(name)
