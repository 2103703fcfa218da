"""ONNX operators that the user brings: found by an entry point or an environment variable, never by a bundle."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

from torchstone.core.errors import ArtifactError, ConfigError
from torchstone.core.values import RuntimeOptions
from torchstone.runtimes import onnxruntime
from torchstone.runtimes.onnxruntime import OPERATORS, OPERATORS_VARIABLE, open_session, operator_libraries


@pytest.fixture(autouse=True)
def asked_anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The libraries are looked for once a process."""
    monkeypatch.delenv(OPERATORS_VARIABLE, raising=False)
    operator_libraries.cache_clear()
    yield
    operator_libraries.cache_clear()


@pytest.fixture
def unusual(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A model with an operator that ONNX Runtime does not have. What is registered stays so: each has its own name."""
    name = "HalfOf" + getattr(request, "param", "")
    import onnx
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node(name, ["x"], ["y"], domain="ai.onnx.contrib")],
        "unusual",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
    )
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.contrib", 1)]
    onnx.save(helper.make_model(graph, opset_imports=sets, ir_version=8), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_without_them_the_model_is_refused_by_name(unusual: Path) -> None:
    with pytest.raises(ArtifactError, match="HalfOf"):
        open_session(unusual, RuntimeOptions())


def test_a_library_that_is_none_is_refused_with_its_path(
    unusual: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.so").write_bytes(b"nonsense")
    monkeypatch.setenv(OPERATORS_VARIABLE, str(tmp_path / "mine.so"))
    with pytest.raises(ArtifactError, match=r"mine\.so") as caught:
        open_session(unusual, RuntimeOptions())
    assert OPERATORS_VARIABLE in str(caught.value.hint)


@pytest.mark.parametrize(("way", "unusual"), [("variable", "One"), ("entry point", "Two")], indirect=["unusual"])
def test_with_them_it_runs(way: str, unusual: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extensions = pytest.importorskip("onnxruntime_extensions", reason="a library of operators to register")

    @extensions.onnx_op(
        op_type="HalfOfOne" if way == "variable" else "HalfOfTwo",
        inputs=[extensions.PyCustomOpDef.dt_float],
        outputs=[extensions.PyCustomOpDef.dt_float],
    )
    def half_of(x: np.ndarray) -> np.ndarray:
        return x / 2

    if way == "variable":
        monkeypatch.setenv(OPERATORS_VARIABLE, extensions.get_library_path())
    else:
        point = EntryPoint("extensions", "onnxruntime_extensions:get_library_path", OPERATORS)
        monkeypatch.setattr(onnxruntime, "entry_points", lambda group: [point] if group == OPERATORS else [])
    session = open_session(unusual, RuntimeOptions())
    assert session.run(None, {"x": np.ones((2, 3), np.float32)})[0].tolist() == [[0.5] * 3] * 2


def test_an_entry_point_that_leads_nowhere_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("mine", "no_such_module:path", OPERATORS)
    monkeypatch.setattr(onnxruntime, "entry_points", lambda **_: [point])
    with pytest.raises(ConfigError, match="'mine'"):
        operator_libraries()
