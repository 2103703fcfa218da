"""The moving average, against timm's."""

from __future__ import annotations

import torch
from timm.utils.model_ema import ModelEmaV3
from torch import nn

from torchstone.train.ema import Average

DECAY, UPDATES = 0.9, 120


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 2))


def trained(layers: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    optimiser.zero_grad()
    layers(torch.randn(4, 3, 8, 8)).square().mean().backward()
    optimiser.step()


def test_it_is_timms_with_the_decay_of_its_warm_up() -> None:
    layers = network().train()
    optimiser = torch.optim.SGD(layers.parameters(), lr=0.05)
    ours, theirs = Average(layers, DECAY), ModelEmaV3(layers, use_warmup=False)
    for number in range(1, UPDATES + 1):
        trained(layers, optimiser)
        ours.update(layers)
        theirs.decay = min(DECAY, (1 + number) / (10 + number))
        theirs.update(layers)
    found = ours.state_dict()
    for name, value in theirs.module.state_dict().items():
        assert torch.allclose(found[name].float(), value.float(), rtol=1e-5, atol=1e-6), name
        assert not torch.equal(value, layers.state_dict()[name]) or not value.is_floating_point(), name
    assert int(found["1.num_batches_tracked"]) == UPDATES


def test_it_is_swapped_in_and_out_and_a_training_goes_on_from_its_own_weights() -> None:
    layers = network()
    optimiser = torch.optim.AdamW(layers.parameters(), lr=0.1)
    average = Average(layers, DECAY)
    for _ in range(5):
        trained(layers, optimiser)
        average.update(layers)
    own = {name: value.clone() for name, value in layers.state_dict().items()}
    mean = {name: value.clone() for name, value in average.state_dict().items()}
    try:
        with average.applied(layers):
            assert all(torch.equal(value, mean[name]) for name, value in layers.state_dict().items())
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert all(torch.equal(value, own[name]) for name, value in layers.state_dict().items())
    assert all(torch.equal(value, mean[name]) for name, value in average.state_dict().items())
    trained(layers, optimiser)
    assert not torch.equal(layers.state_dict()["3.weight"], own["3.weight"]), "the optimiser still holds its parameters"


def test_it_goes_on_from_what_was_stored() -> None:
    layers = network()
    optimiser = torch.optim.SGD(layers.parameters(), lr=0.05)
    whole = Average(layers, DECAY)
    for _ in range(3):
        trained(layers, optimiser)
        whole.update(layers)
    again = Average(network(), DECAY)
    again.load_state_dict({name: value.clone() for name, value in whole.state_dict().items()})
    for average in (whole, again):
        average.update(layers)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
