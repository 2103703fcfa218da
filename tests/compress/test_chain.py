from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchstone.compress import chain
from torchstone.core.errors import ChainError, TorchstoneError


@pytest.mark.parametrize(
    ("text", "shown", "name"),
    [
        ("onnx", "onnx in onnxruntime", "onnx@onnxruntime"),
        ("openvino", "(onnx) + openvino in openvino", "openvino"),
        ("onnx@openvino", "onnx in openvino", "onnx@openvino"),
        ("int8", "(onnx) + int8@onnxruntime in onnxruntime", "int8@onnxruntime"),
        ("int8@openvino", "(onnx) + (openvino) + int8@openvino in openvino", "int8@openvino"),
        ("int8=64:preset=mixed@openvino", "(onnx) + (openvino) + int8=64:preset=mixed@openvino in openvino", None),
        ("bf16@torch", "bf16@torch in torch", "bf16@torch"),
        ("prune=0.3", "prune=0.3 in torch", "prune=0.3@torch"),
        ("finetune@openvino", "finetune + (onnx) + (openvino) in openvino", "finetune@openvino"),
        (
            "prune=0.3:round_to=16+finetune=2+int8@openvino",
            "prune=0.3:round_to=16 + finetune=2 + (onnx) + (openvino) + int8@openvino in openvino",
            "prune=0.3:round_to=16+finetune=2+int8@openvino",
        ),
    ],
)
def test_missing_conversions_are_inserted_and_shown(text: str, shown: str, name: str | None) -> None:
    plan = chain.plan(text, check_packages=False)
    assert str(plan) == shown
    assert plan.name == (name or text)


@pytest.mark.parametrize(
    ("text", "problem", "hint"),
    [
        ("int8+prune", "'prune' takes torch, 'int8' made onnx", "put 'prune' before 'int8'"),
        ("openvino+int8@onnxruntime", "'int8' takes onnx, 'openvino' made openvino", "put 'int8' before 'openvino'"),
        ("int8@openvino+bf16@openvino", "'int8' must come last, 'bf16' follows it", "choose one"),
        ("int8:calibration=entropy@openvino", "has no calibration", "int8@onnxruntime"),
        ("int8:preset=mixed", "has no preset", "int8@openvino"),
        ("prunne=0.3", "unknown step 'prunne'", "did you mean 'prune'?"),
        ("prune=2", "ratio='2' is refused", "a share of the whole: 0.3 is 30 %"),
        ("prune=30", "ratio='30' is refused", "a share: 0.3 is 30 %"),
        ("prune=30%", "ratio='30%' is refused", "a share: 0.3 is 30 %"),
        ("Int8@openvino", "is not a step", "did you mean 'int8'?"),
        ("prune=0.3 + onnx", "is not a step", "without blanks"),
        ("student", "'student' needs its name: student=NAME", "a network of the zoo"),
        ("int8:images=many", "images='many' is refused", "calibration images"),
        ("int8:image=64", "no option 'image'", "did you mean 'images'?"),
        ("int8@torch", "cannot be built for 'torch'", "known: onnxruntime, openvino"),
        ("onnx@onnxruntimes", "cannot be built for 'onnxruntimes'", "did you mean 'onnxruntime'?"),
        ("bf16=3", "takes no value", "write 'bf16' alone"),
        ("prune:0.3", "is not key=value", None),
        ("prune = 0.3", "is not a step", "name[=value]"),
        ("", "is not a step", None),
        ("prune+", "is not a step", None),
    ],
)
def test_what_cannot_be_built_is_said_before_anything_is(text: str, problem: str, hint: str | None) -> None:
    with pytest.raises(ChainError) as caught:
        chain.plan(text, check_packages=False)
    assert problem in caught.value.message
    assert hint is None or (caught.value.hint and hint in caught.value.hint)


@given(st.text(max_size=30) | st.from_regex(r"(int8|prune|onnx)([=:@+][a-z0-9.,=]{0,6}){0,4}", fullmatch=True))
def test_any_text_is_a_plan_or_a_clear_error(text: str) -> None:
    try:
        assert chain.plan(text, check_packages=False).steps
    except TorchstoneError as error:
        assert error.message


def test_only_unchanged_weights_are_free() -> None:
    free = {text: chain.plan(text, check_packages=False).free for text in ("onnx", "openvino", "bf16@openvino", "int8")}
    assert free == {"onnx": True, "openvino": True, "bf16@openvino": True, "int8": False}


def test_what_is_free_can_depend_on_the_options() -> None:
    kept, learnt = (f"resolution=16:epochs={epochs}+onnx" for epochs in (0, 2))
    assert chain.plan(kept, check_packages=False).free
    assert not chain.plan(learnt, check_packages=False).free
    assert chain.keeps_weights(kept)
    assert not chain.keeps_weights(learnt)
    assert not chain.keeps_weights("mirror+int8@openvino")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("student=timm/resnet18:epochs=3", "student=timm/resnet18:epochs=3 in torch"),
        ("student=efficientnet/0.5", "student=efficientnet/0.5 in torch"),
    ],
)
def test_a_student_of_a_named_library_needs_no_colon(text: str, shown: str) -> None:
    plan = chain.plan(text)
    assert str(plan) == shown
    assert str(chain.plan(plan.text)) == shown


def test_a_missing_package_is_named_with_its_extra_before_anything_is_built() -> None:
    script = (
        "import sys; sys.modules['nncf'] = None\n"
        "from torchstone.compress import chain\n"
        "chain.plan('int8@openvino')\n"
    )  # fmt: skip
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "needs nncf, which cannot be imported here" in done.stderr
    assert "pip install 'torchstone[openvino]'" in done.stderr
