"""The space of chains: what it offers, what it refuses, and that every chain it draws can be planned."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import optuna
import pytest

from torchstone.compress import chain
from torchstone.core import registry
from torchstone.core.errors import ConfigError
from torchstone.core.values import Artifact, MadeBy, Preprocess
from torchstone.search import space
from torchstone.search.chains import Declared, of_file, of_model, spelt, starts
from torchstone.search.space import Choices, Range

ALL = """
shape = ["none", "prune", "iterate", "resolution"]
training = ["none", "finetune", "qat"]
arithmetic = ["none", "int8", "bf16", "dynamic"]
runtime = ["torch", "onnxruntime", "openvino"]

[prune]
ratio = {low = 0.1, high = 0.5, step = 0.1}
importance = "taylor"

[resolution]
pixels = [16, 24]

[int8]
bias = ["fast", "accurate"]
percentile = 99.999
calibration = "percentile"
"""


@pytest.fixture(scope="module")
def lenet5() -> Artifact:
    """A model as a space sees it: no files are asked for."""
    return Artifact(
        id="", key="", format="torch", files={}, architecture="lenet5", classes=tuple("0123456789"),
        preprocess=Preprocess(decoder_version="none", resize=32, crop=32),
        made_by=MadeBy(step="train", version=1), split_fingerprint="none",
    )  # fmt: skip


def declared(tmp_path: Path, text: str) -> Declared:
    (tmp_path / "space.toml").write_text(text)
    return of_file(tmp_path / "space.toml")


def drawn(options: space.Space, trials: int) -> list[dict[str, Any]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [space.suggest(options, study.ask()) for _ in range(trials)]


def test_every_chain_that_is_drawn_can_be_planned_and_says_what_was_drawn(tmp_path: Path, lenet5: Artifact) -> None:
    options = of_model(lenet5, declared(tmp_path, ALL))
    seen = set()
    for values in drawn(options, 150):
        text = spelt(values)
        if not text:
            assert values == {"shape": "none", "training": "none", "runtime": "torch", "arithmetic@torch": "none"}
            continue
        plan = chain.plan(text, check_packages=False)
        assert plan.runtime == values["runtime"], text
        asked = [step for step in plan.steps if not step.inserted]
        for name, value in values.items():
            step, dot, option = name.partition(".")
            if dot:
                config = next(one.config for one in asked if one.name == step.partition("@")[0])
                close = pytest.approx(value, rel=5e-3) if isinstance(value, float) else value
                assert getattr(config, option) == close, text
        seen |= {one.name for one in asked}
    assert seen == {"prune", "iterate", "resolution", "finetune", "qat", "int8", "bf16", "dynamic", "onnx", "openvino"}


def test_what_trains_by_itself_is_followed_by_no_training(tmp_path: Path, lenet5: Artifact) -> None:
    for values in drawn(of_model(lenet5, declared(tmp_path, ALL)), 100):
        assert ("training" in values) is (values["shape"] in ("none", "prune")), "a resolution has epochs of its own"


def test_an_option_goes_with_its_step_and_its_target(tmp_path: Path, lenet5: Artifact) -> None:
    options = of_model(lenet5, declared(tmp_path, ALL))
    assert options["prune.ratio"] == Range(low=0.1, high=0.5, step=0.1, given={"shape": ("prune",)})
    assert options["prune.importance"] == Choices(values=("taylor",), given={"shape": ("prune",)})
    assert {name for name in options if name.endswith(".bias")} == {"int8@openvino.bias"}
    assert {name for name in options if name.endswith(".percentile")} == {"int8@onnxruntime.percentile"}
    assert "int8" not in options["arithmetic@torch"].table
    assert "percentile=99.999" in spelt({
        "shape": "none", "training": "none", "runtime": "onnxruntime", "arithmetic@onnxruntime": "int8",
        "int8@onnxruntime.percentile": 99.999,
    })  # fmt: skip


def test_the_usual_space_offers_what_fits_the_model(lenet5: Artifact) -> None:
    photos = lenet5.model_copy(
        update={"architecture": "timm:resnet50", "preprocess": lenet5.preprocess.model_copy(update={"crop": 224})}
    )
    small, large = of_model(lenet5), of_model(photos)
    assert small["shape"].table == ["none", "prune"], "LeNet-5 is the smallest of its family, and sees 32 pixels"
    assert set(large["shape"].table) == {"none", "prune", "resolution", "student"}
    assert large["resolution.pixels"].table == [128, 160, 192]
    assert large["student.name"].table == ["resnet34", "resnet18"]
    assert "torch" not in small["runtime"].table


def test_it_begins_with_what_costs_no_training(lenet5: Artifact) -> None:
    options = of_model(lenet5)
    first = starts(options)
    texts = [spelt(values) for values in first]
    assert texts[0] == "onnx"
    assert "int8=128:calibration=minmax@onnxruntime" in texts
    assert len(set(texts)) == len(texts)
    for values in first:
        assert space.first_guess(options, values) == values
    assert starts({**options, "shape": Choices(values=("prune",))}) == []


def test_the_least_of_several_digits_is_left_out(lenet5: Artifact) -> None:
    values = {
        "shape": "prune", "training": "finetune", "runtime": "onnxruntime", "arithmetic@onnxruntime": "none",
        "prune.ratio": 0.1 + 2 * 0.1, "finetune.lr": 0.00052345678,
    }  # fmt: skip
    assert spelt(values) == "prune=0.3+finetune:lr=0.000523+onnx"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('shapes = ["none"]', "unknown key 'shapes' in"),
        ('shape = ["prnue"]', "unknown 'prnue'\nhint: did you mean 'prune'?"),
        ("shape = []", "it is a list of different names"),
        ('runtime = ["coreml"]', "unknown 'coreml'"),
        ('shape = ["none"]\n[prune]\nratio = 0.3', "has a table [prune], but its shape offers no 'prune'"),
        ("[prune]\nration = 0.3", "has no option 'ration'\nhint: did you mean 'ratio'?"),
        ("[prune]\nratio = {low = 0.1, high = 1.5}", "less than 1"),
        ("[prune]\nratio = []", "a list needs a value or more"),
        ('[int8]\npreset = "fastest"', "Input should be 'performance' or 'mixed'"),
        ("[student]\nepochs = 3", "'student' needs a range of its name"),
        ("onnx = 3", "unknown key 'onnx'"),
    ],
)
def test_a_space_that_makes_no_sense_is_refused(text: str, message: str, tmp_path: Path, lenet5: Artifact) -> None:
    with pytest.raises(ConfigError) as caught:
        of_model(lenet5, declared(tmp_path, text))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "sketch"),
    [
        ("prune=0.3+finetune=2+int8@openvino", "prune=0.3+int8@openvino"),
        ("finetune=2+onnx", "onnx"),
        ("prune=0.3+finetune=2@openvino", "prune=0.3@openvino"),
        ("iterate=3:macs=0.4,scope=global+int8@onnxruntime", "prune:macs=0.4,scope=global+int8@onnxruntime"),
        ("resolution=24:epochs=2+onnx", "resolution=24:epochs=0+onnx"),
        ("student=resnet20:epochs=9+qat=2+int8@openvino", "student=resnet20:epochs=0+int8@openvino"),
        ("prune=0.3+int8@openvino", None),
        ("resolution=24:epochs=0+onnx", None),
        ("finetune=2", None),
    ],
)
def test_a_sketch_has_the_shape_and_trains_nothing(text: str, sketch: str | None) -> None:
    found = chain.sketch(chain.plan(text, check_packages=False))
    assert found == sketch
    if found:
        again = chain.plan(found, check_packages=False)
        assert chain.sketch(again) is None
        assert again.runtime == chain.plan(text, check_packages=False).runtime


@pytest.mark.parametrize("name", registry.steps.names())
def test_a_steps_ranges_are_options_that_it_has(name: str, lenet5: Artifact) -> None:
    step = registry.steps.get(name)
    ranges = step.ranges(lenet5)
    assert ranges is None or (step.place is not None and set(ranges) <= set(step.Config.model_fields))


def test_conditional_options_are_drawn_together_by_tpe(lenet5: Artifact) -> None:
    """Optuna's group of options that come together takes what it was told of the others."""
    options = of_model(lenet5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(seed=0, multivariate=True, group=True, n_startup_trials=8)
    study = optuna.create_study(sampler=sampler, directions=["minimize", "maximize"])
    for _ in range(30):
        trial = study.ask()
        values = space.suggest(options, trial)
        study.tell(trial, [values.get("prune.ratio", 0.0), float(values["runtime"] == "onnxruntime")])
    late = [trial.params["runtime"] for trial in study.trials[15:]]
    assert late.count("onnxruntime") > len(late) / 2
