"""Steps that train: students, distillation, quantisation-aware training, pruning in rounds."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from built import answers, made, top1
from torch import nn

from torchstone.compress import chain, fake_quantisation
from torchstone.core.errors import ChainError, ConfigError
from torchstone.core.values import Candidate
from torchstone.models import cost, store
from torchstone.stages.read import Data

CROP = 32


def test_a_student_learns_from_the_model(baseline: Candidate, data: Data) -> None:
    taught = made("student=resnet20:epochs=1,views=1", baseline, data).artifact
    assert (taught.architecture, taught.classes) == ("resnet20", baseline.artifact.classes)
    assert taught.preprocess == baseline.artifact.preprocess
    assert taught.notes[-1].startswith("student resnet20: taught by lenet5 (as trained), which answered 1 view of")
    assert taught.steps == ("student",)


def test_distillation_mends_what_pruning_broke(baseline: Candidate, data: Data) -> None:
    """The teacher is the model before it was pruned."""
    broken, mended = made("prune=0.5", baseline, data), made("prune=0.5+distill=3:lr=0.002", baseline, data)
    assert top1(answers(mended, data)) > top1(answers(broken, data)) + 0.1
    assert "taught by lenet5 (as trained), which answered 3 views" in mended.artifact.notes[-1]


def test_another_teacher_is_another_artifact(baseline: Candidate, data: Data) -> None:
    """Although the option is the same path."""
    import shutil

    place = data.run.root / "teacher"
    keys = []
    for text in ("onnx", "prune=0.5+onnx"):
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(made(text, baseline, data).artifact.directory, place)
        keys.append(made(f"distill=1:teacher={place}", baseline, data).artifact.key)
    assert len(set(keys)) == 2


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("student=resnet20:alone=true,method=dkd", "has no teacher"),
        ("student=resnet20:beta=3", "by kd has no beta"),
        ("distill:method=dkd,share=0.5", "by dkd has no share"),
        ("student", "name"),
        ("iterate:macs=2", "macs='2' is refused"),
    ],
)
def test_options_that_contradict_each_other_are_refused(text: str, problem: str) -> None:
    with pytest.raises(ChainError, match=problem):
        chain.plan(text)


def test_an_unknown_student_is_refused_before_anything_is_built() -> None:
    with pytest.raises(ConfigError, match="unknown model 'resnett20'"):
        chain.plan("student=resnett20")


def test_a_student_alone_gets_the_teachers_time(baseline: Candidate, data: Data) -> None:
    """In multiplications: LeNet-5 answering thirty views is ten epochs of LeNet-5."""
    done = made("student=lenet5:alone=true,epochs=2,views=2", baseline, data).artifact
    assert done.notes == ("student: lenet5 alone, 3 epochs for the time of 2 with a teacher",)


def test_rounded_weights_are_those_of_int8() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 4, 3)
    weight = layer.weight.detach().clone()
    network = nn.Sequential(layer)
    with fake_quantisation.rounded(network):
        seen = layer.weight.detach()
        scale = weight.abs().amax((1, 2, 3), keepdim=True) / 127
        torch.testing.assert_close(seen, (weight / scale).round() * scale)
        network.train()(torch.rand(2, 3, 8, 8)).sum().backward()
        gradients = [parameter.grad for parameter in network.parameters()]
        assert all(gradient is not None and bool(gradient.abs().sum() > 0) for gradient in gradients)
    assert set(network.state_dict()) == {"0.weight", "0.bias"}
    assert type(layer) is nn.Conv2d
    torch.testing.assert_close(layer.weight.detach(), weight)


def test_rounding_commutes_with_folding_a_batch_norm() -> None:
    torch.manual_seed(0)
    weight, factors = torch.randn(4, 3, 3, 3), torch.rand(4, 1, 1, 1) + 0.1
    rounding = fake_quantisation.RoundedWeight()
    torch.testing.assert_close(rounding(weight * factors), rounding(weight) * factors)


def test_inputs_are_rounded_to_the_range_that_was_met() -> None:
    rounding = fake_quantisation.RoundedInput()
    x = torch.linspace(-1.0, 3.0, 2000)
    found = rounding.train()(x)
    assert len(found.unique()) <= 256
    assert (found - x).abs().max() <= 4 / 255 / 2 + 1e-5
    assert rounding.eval()(torch.tensor([9.0])).item() == pytest.approx(3.0, abs=4 / 255)


def test_qat_leaves_an_ordinary_network_that_int8_takes(baseline: Candidate, data: Data) -> None:
    done = made("qat=1+int8", baseline, data)
    parent = made("qat=1", baseline, data).artifact
    names = set(store.load_state(parent.directory / store.WEIGHTS))
    assert names == set(store.load_state(baseline.artifact.directory / store.WEIGHTS))
    assert top1(answers(done, data)) >= top1(answers(baseline, data)) - 0.02


def test_qat_learns_to_be_right_under_rounding(
    baseline: Candidate, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounded to three values a channel, where it shows: against as much training without."""
    monkeypatch.setattr(fake_quantisation, "WEIGHT_LEVELS", 1)
    sets = data.sets(baseline.artifact, "train")["train"]
    rows = np.arange(256)
    pixels, labels = torch.from_numpy(sets.images(rows)), torch.from_numpy(sets.labels[rows])

    def coarse(artifact: Any) -> float:
        model = copy.deepcopy(store.load(artifact))
        with fake_quantisation.rounded(model.network), torch.no_grad():
            model.train()(pixels)
            return nn.functional.cross_entropy(model.eval()(pixels), labels).item()

    rounded, plain = (made(f"{step}=2:lr=0.001", baseline, data).artifact for step in ("qat", "finetune"))
    assert coarse(rounded) < 0.8 * coarse(plain)


def test_rounds_reach_the_target_and_are_shown(baseline: Candidate, data: Data) -> None:
    done = made("iterate=2:macs=0.5,lr=0.001", baseline, data).artifact
    whole, left = (cost.macs_of(store.load(one), CROP) for one in (baseline.artifact, done))
    assert left <= 0.5 * whole
    assert not (done.directory / "rounds").exists()
    assert (done.directory / "history.parquet").exists()
    assert done.notes[-1].startswith("iterate: 2 rounds to 0.")


def test_a_killed_iteration_goes_on_with_its_rounds(
    baseline: Candidate, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same weights as one that was left alone, and the first round is not made again."""
    from torchstone.train import stage

    text = "iterate=2:macs=0.6,lr=0.001"
    fit, calls = stage.fit_into, []

    def dying(*given: Any, **named: Any) -> None:
        calls.append(Path(given[5]).name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        fit(*given, **named)

    monkeypatch.setattr(stage, "fit_into", dying)
    with pytest.raises(KeyboardInterrupt):
        made(text, baseline, data)
    resumed = made(text, baseline, data).artifact
    assert calls == ["1", "2", "2"]
    monkeypatch.setattr(stage, "fit_into", fit)
    import shutil

    kept = store.load_state(resumed.directory / store.WEIGHTS)
    shutil.rmtree(resumed.directory)
    whole = store.load_state(made(text, baseline, data).artifact.directory / store.WEIGHTS)
    assert all(torch.equal(value, whole[name]) for name, value in kept.items())
