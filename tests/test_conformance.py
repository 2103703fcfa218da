"""What every plug-in must keep to. Add a file to a folder of plug-ins, and these tests run on it."""

from __future__ import annotations

import importlib
import inspect
import json
import subprocess
import sys
from collections import Counter
from typing import Any, get_args

import pytest

from torchstone.core import contracts, registry
from torchstone.core.errors import EXTRAS_OF_PACKAGE
from torchstone.core.values import Format, Precision

HEAVY = (
    "torch", "torchvision", "timm", "torch_pruning", "onnx", "onnxruntime", "openvino", "nncf", "polars", "sklearn",
    "scipy", "matplotlib", "tensorboard", "wandb", "mlflow", "sqlalchemy", "psutil", "ai_edge_litert",
    "litert_torch", "tensorrt",
)  # fmt: skip
KINDS: dict[str, tuple[registry.Registry[Any], type]] = {
    "readers": (registry.readers, contracts.Reader),
    "steps": (registry.steps, contracts.Step),
    "runtimes": (registry.runtimes, contracts.Runtime),
    "profilers": (registry.profilers, contracts.Profiler),
    "data_checks": (registry.data_checks, contracts.Check),
    "machine_checks": (registry.machine_checks, contracts.Check),
    "training_checks": (registry.training_checks, contracts.Check),
    "trackers": (registry.trackers, contracts.Tracker),
}
PLUGINS = [(kind, name) for kind, (known, _) in KINDS.items() for name in known.names()]
STEPS = registry.steps.names()

every_plugin = pytest.mark.parametrize(("kind", "name"), PLUGINS)
every_step = pytest.mark.parametrize("name", STEPS)

IMPORT_ALL = """
import json, sys
for name in json.loads(sys.argv[1]):
    sys.modules[name] = None  # importing it raises ModuleNotFoundError
from torchstone.core import registry
failed = {}
for kind, name in json.loads(sys.argv[2]):
    try:
        getattr(registry, kind).get(name)
    except Exception as error:
        failed[f"{kind}/{name}"] = f"{type(error).__name__}: {error}"
print(json.dumps(failed))
"""


@pytest.fixture(scope="module")
def failed_imports() -> dict[str, str]:
    """Plug-ins that cannot be imported and made with every heavy package out of reach; one process tries them all."""
    arguments = [sys.executable, "-c", IMPORT_ALL, json.dumps(HEAVY), json.dumps(PLUGINS)]
    return json.loads(subprocess.run(arguments, capture_output=True, text=True, check=True).stdout)


def test_there_are_plugins_of_every_kind() -> None:
    assert {kind for kind, _ in PLUGINS} == set(KINDS)


@every_plugin
def test_it_imports_without_the_packages_it_needs(kind: str, name: str, failed_imports: dict[str, str]) -> None:
    assert f"{kind}/{name}" not in failed_imports, failed_imports[f"{kind}/{name}"]


@every_plugin
def test_it_keeps_to_its_contract(kind: str, name: str) -> None:
    known, contract = KINDS[kind]
    plugin = known.get(name)
    assert isinstance(plugin, contract)
    for method, theirs in inspect.getmembers(contract, inspect.isfunction):
        if not method.startswith("_"):
            ours = inspect.signature(getattr(plugin, method))
            assert list(ours.parameters) == list(inspect.signature(theirs).parameters)[1:], method


@every_plugin
def test_it_says_what_it_is(kind: str, name: str) -> None:
    plugin = KINDS[kind][0].get(name)
    assert inspect.getdoc(type(plugin)), "the class has no docstring"
    assert importlib.import_module(type(plugin).__module__).__doc__, "the file has no docstring"
    assert "Protocol" not in (inspect.getdoc(type(plugin)) or "")


@every_plugin
def test_what_it_requires_has_a_known_extra(kind: str, name: str) -> None:
    required = KINDS[kind][0].get(name).requires
    assert isinstance(required, tuple)
    assert set(required) <= set(EXTRAS_OF_PACKAGE)


@every_step
def test_a_step_has_options_that_a_chain_can_set(name: str) -> None:
    step = registry.steps.get(name)
    assert issubclass(step.Config, contracts.StepConfig)
    for option, field in step.Config.model_fields.items():
        explained = field.description or option in (inspect.getdoc(type(step)) or "")
        assert explained, f"neither Field(description=…) nor the class's docstring explains '{option}'"
    if step.value_option is not None:
        assert step.value_option in step.Config.model_fields
    required = {option for option, field in step.Config.model_fields.items() if field.is_required()}
    assert required <= {step.value_option}, "only the option of 'step=value' may have no default"


@every_step
def test_a_step_names_formats_targets_and_packages_that_exist(name: str) -> None:
    step = registry.steps.get(name)
    assert step.accepts
    assert set(step.accepts) <= set(get_args(Format))
    assert step.produces in {None, *get_args(Format)}
    assert set(step.targets) <= set(registry.runtimes.names())
    assert step.version >= 1
    for target in (None, *step.targets):
        assert set(step.requires_for(target)) <= set(EXTRAS_OF_PACKAGE)


def test_no_two_steps_share_a_name() -> None:
    stems = [
        file.stem
        for folder in ("compress/steps", "export/formats")
        for file in (registry.PACKAGE / folder).glob("*.py")
    ]
    assert [stem for stem, count in Counter(stems).items() if count > 1 and stem != "__init__"] == []


@pytest.mark.parametrize("name", registry.runtimes.names())
def test_a_runtime_names_formats_and_precisions_that_exist(name: str) -> None:
    runtime = registry.runtimes.get(name)
    assert runtime.formats
    assert set(runtime.formats) <= set(get_args(Format))
    assert set(runtime.precisions) <= set(get_args(Precision))
    assert "f32" in runtime.precisions


def test_every_format_has_a_runtime_that_opens_it() -> None:
    opened = {form for name in registry.runtimes.names() for form in registry.runtimes.get(name).formats}
    assert opened == set(get_args(Format))
