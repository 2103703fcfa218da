from __future__ import annotations

import pytest

from torchstone.core.errors import ConfigError
from torchstone.models import families
from torchstone.models.families import FAMILIES, Family, described, members

QUICK = ("lenet5", "resnet20", "resnet9", "resnet18")
LISTED = [(family, name) for family in FAMILIES for name in family.members]


def stored(name: str) -> families.Member:
    return next(one for one in members() if one.name == name)


@pytest.mark.parametrize(
    ("family", "name"),
    [pytest.param(*pair, marks=() if pair[1] in QUICK else pytest.mark.slow, id=pair[1]) for pair in LISTED],
)
def test_the_stored_costs_are_those_that_are_counted(family: Family, name: str) -> None:
    assert stored(name) == described(family, name)


def test_every_network_of_every_family_is_stored() -> None:
    assert [(one.family, one.name) for one in members()] == [(family.name, name) for family, name in LISTED]


def test_costs_and_accuracies_are_those_that_torchvision_publishes() -> None:
    """Their own counts, where their network takes the same input."""
    from torchvision import models

    theirs = {"mobilenetv3_small_100": "mobilenet_v3_small", "mobilenetv3_large_100": "mobilenet_v3_large"}
    same_input = {"alexnet", "resnet18", "resnet34", "resnet50", "resnet152", *theirs, "tf_efficientnet_b0"}
    compared = 0
    for one in members():
        if one.top1_source != families.TORCHVISION:
            continue
        known = theirs.get(one.name, one.name.removeprefix("tf_"))
        meta = models.get_model_weights(known).IMAGENET1K_V1.meta  # pyright: ignore[reportAttributeAccessIssue]
        assert one.top1 == pytest.approx(meta["_metrics"]["ImageNet-1K"]["acc@1"])
        assert one.parameters == meta["num_params"]
        if one.name in same_input:
            assert one.macs / 1e9 == pytest.approx(meta["_ops"], rel=0.01, abs=6e-4)
            compared += 1
    assert compared == len(same_input)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("alex", ["alexnet"]),
        ("SE-ResNet", ["seresnet18", "seresnet34", "seresnet50", "seresnet152"]),
        ("*lite[01]", ["tf_efficientnet_lite0", "tf_efficientnet_lite1"]),
        ("lenet", ["lenet5"]),
        ("lite4", ["tf_efficientnet_lite4"]),
        ("v3", ["mobilenetv3_small_100", "mobilenetv3_large_100"]),
        ("mobilenet v3", ["mobilenetv3_small_100", "mobilenetv3_large_100"]),
    ],
)
def test_members_by_part_of_a_name(pattern: str, names: list[str]) -> None:
    assert [one.name for one in members(pattern)] == names


def test_a_network_of_no_family_is_counted() -> None:
    (one,) = members("torchvision:squeezenet1_1")
    assert one.parameters == 1_235_496
    assert one.macs / 1e9 == pytest.approx(0.349, abs=0.001)
    assert one.top1 is None


def test_what_is_no_network_is_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean"):
        members("lenet6")
    with pytest.raises(ConfigError, match="no family"):
        members("xyz*")
