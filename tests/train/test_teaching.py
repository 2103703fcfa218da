"""Distillation's losses, its views, and a teacher that is asked once."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.datasets
import torch
from PIL import Image
from torch.nn import functional

from torchstone.compress.steps.resolution import resized
from torchstone.core.errors import ChainError, ConfigError
from torchstone.core.values import Artifact, Candidate
from torchstone.data import augment
from torchstone.runtimes import open_artifact
from torchstone.stages import compress
from torchstone.stages.read import Data
from torchstone.train import loop, losses, recipes, teaching
from torchstone.train.recipe import Recipe
from torchstone.train.teaching import Distillation, Teaching

RECIPE = Recipe(epochs=3, batch=64, label_smoothing=0.0, augment="light", precision="f32", checkpoint_seconds=0)


def some(seed: int) -> torch.Tensor:
    return torch.randn(6, 5, generator=torch.Generator().manual_seed(seed)) * 3


TARGETS = torch.tensor([0, 1, 2, 3, 4, 0])


def test_kd_is_hintons_sum() -> None:
    """By its definition, in float64 and loops."""
    logits, taught = some(1), some(2)
    found = Distillation(temperature=3.0, share=0.7).per_image(logits, TARGETS, taught, RECIPE)
    for row, target in enumerate(TARGETS.tolist()):
        s, t = np.exp(logits[row].double().numpy() / 3), np.exp(taught[row].double().numpy() / 3)
        s, t = s / s.sum(), t / t.sum()
        hard = np.exp(logits[row].double().numpy())
        labels = -np.log(hard[target] / hard.sum())
        assert found[row].item() == pytest.approx(0.3 * labels + 0.7 * 9 * (t * np.log(t / s)).sum(), rel=1e-5)


def test_dkd_with_the_teachers_own_weights_is_kd() -> None:
    """Formula 5 of the paper: KD = TCKD + (1 - p of the right class) · NCKD, so that β of that size gives KD again."""
    logits, taught = some(1), some(2)
    plain = losses.per_image(logits, TARGETS, RECIPE, None)
    for row in range(len(TARGETS)):
        right = functional.softmax(taught[row] / 4, 0)[TARGETS[row]].item()
        decoupled = Distillation(method="dkd", temperature=4.0, alpha=1.0, beta=1 - right)
        one = slice(row, row + 1)
        found = decoupled.per_image(logits[one], TARGETS[one], taught[one], RECIPE) - plain[one]
        whole = Distillation(temperature=4.0, share=1.0).per_image(logits[one], TARGETS[one], taught[one], RECIPE)
        torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["kd", "dkd"])
def test_who_answers_as_the_teacher_has_nothing_to_learn_from_it(method: Any) -> None:
    logits = some(1).requires_grad_()
    loss = Distillation(method=method, share=1.0).per_image(logits, TARGETS, logits.detach(), RECIPE)
    plain = losses.per_image(logits, TARGETS, RECIPE, None) if method == "dkd" else torch.zeros(6)
    torch.testing.assert_close(loss, plain, atol=1e-5, rtol=1e-5)


def test_the_time_of_a_teacher_in_epochs() -> None:
    assert teaching.alone(30, 0, 100, 10) == 30
    assert teaching.alone(30, 8, 300, 100) == 38


@pytest.fixture
def lesson(trained: Artifact, data: Data, tmp_path: Path) -> Teaching:
    return Teaching(
        teacher=trained, images=data.sets(trained, "train")["train"], distillation=Distillation(), views=2,
        policy="light", cache=tmp_path,
    )  # fmt: skip


def test_the_teacher_answers_for_the_images_that_the_student_sees(lesson: Teaching, trained: Artifact) -> None:
    lesson.prepare()
    rows = np.array([5, 3, 11])
    runner = open_artifact(trained)
    for epoch in range(4):
        pixels = lesson.augmenter(epoch, 32)(lesson.images.stored(rows), rows)
        np.testing.assert_allclose(lesson.taught(rows, epoch), runner(pixels)["logits"], atol=1e-4)
    assert torch.equal(lesson.taught(rows, 0), lesson.taught(rows, 2))
    assert not torch.equal(lesson.taught(rows, 0), lesson.taught(rows, 1))


def test_it_is_asked_once(lesson: Teaching, monkeypatch: pytest.MonkeyPatch) -> None:
    lesson.prepare()
    again = dataclasses.replace(lesson, distillation=Distillation(method="dkd"), _open={})
    monkeypatch.setattr(teaching, "open_artifact", None)  # whoever asks again fails
    again.prepare()
    with pytest.raises(TypeError):
        dataclasses.replace(lesson, views=3, _open={}).prepare()


def test_an_onnx_teacher_answers_as_well(lesson: Teaching, baseline: Candidate, data: Data, tmp_path: Path) -> None:
    lesson.prepare()
    exported = compress.build_all(compress.plan_all(["onnx"]), baseline, data, seed=0)[0]
    other = dataclasses.replace(lesson, teacher=exported.artifact, views=1, _open={})
    other.prepare()
    rows = np.arange(20)
    torch.testing.assert_close(other.taught(rows, 0), lesson.taught(rows, 0), atol=1e-3, rtol=1e-3)
    assert len(list((tmp_path / "teachers").iterdir())) == 2


class DyingError(Exception):
    pass


def test_a_taught_training_that_is_killed_goes_on_to_the_bit(lesson: Teaching, data: Data, tmp_path: Path) -> None:
    from torchstone.data.preprocess import default_preprocess
    from torchstone.models import zoo
    from torchstone.models.deployable import Deployable
    from torchstone.train.observe import Observer, Step

    lesson.prepare()
    sets = data.sets(lesson.teacher, "train", "val")

    class Dying(Observer):
        def step(self, step: Step) -> None:
            if step.number == 25:
                raise DyingError

    def student() -> Deployable:
        torch.manual_seed(3)
        return Deployable(zoo.build("lenet5", classes=10), default_preprocess(32))

    def run(name: str, model: Deployable, *observers: Observer) -> list[dict[str, float]]:
        done = loop.fit(
            model, sets["train"], sets["val"], RECIPE, 1, tmp_path / name, observers=observers, teaching=lesson
        )
        return [{key: row[key] for key in ("train_loss", "val_loss", "gradient")} for row in done.history]

    whole, again = student(), student()
    expected = run("whole", whole)
    with pytest.raises(DyingError):
        run("broken", student(), Dying())
    assert run("broken", again) == expected
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    with pytest.raises(Exception, match="teaching"):
        loop.fit(student(), sets["train"], sets["val"], RECIPE, 1, tmp_path / "broken")


def test_what_a_teacher_cannot_answer_for_is_refused(lesson: Teaching, data: Data, tmp_path: Path) -> None:
    from torchstone.models import store

    sets = data.sets(lesson.teacher, "train", "val")
    mixed = recipes.changed(RECIPE, {"mixup": 0.2})
    model = store.load(lesson.teacher)
    with pytest.raises(ConfigError, match="single images"):
        loop.fit(model, sets["train"], sets["val"], mixed, 1, tmp_path / "mixed", teaching=lesson)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"classes": ("a", "b")}, "classes of the teacher"),
        ({"split_fingerprint": "another"}, "another split"),
        ({"preprocess": {"interpolation": "nearest"}}, "interpolation is nearest and bilinear"),
        ({"preprocess": {"crop": 16}}, "other parts of an image: the teacher 16 pixels of 32 and the student 32 of 32"),
    ],
)
def test_teachers_of_something_else_are_refused(change: dict[str, Any], problem: str, trained: Artifact) -> None:
    if other := change.get("preprocess"):
        change = {"preprocess": trained.preprocess.model_copy(update=other)}
    with pytest.raises(ChainError, match=problem):
        teaching.check_teacher(trained.model_copy(update=change), trained, "light")


@pytest.mark.parametrize("policy", ["none", "light", "mirror", "standard", "medical"])
@pytest.mark.parametrize("margin", [0, 32])
def test_the_same_view_at_another_size(policy: str, margin: int) -> None:
    """Half the pixels, the same part of the image, mirrored and turned alike: what another view shows is far off."""
    photo = Image.open(Path(sklearn.datasets.__file__).parent / "images" / "flower.jpg").convert("RGB")
    corners = [photo.crop((60 * number, 10 * number, 60 * number + 300, 10 * number + 300)) for number in range(6)]
    large = np.stack([np.asarray(one.resize((256 + margin, 256 + margin))) for one in corners])
    small = np.stack([np.asarray(Image.fromarray(one).resize((128 + margin // 2, 128 + margin // 2))) for one in large])
    rows = np.arange(6)

    def seen(images: np.ndarray, crop: int, epoch: int) -> np.ndarray:
        made = augment.Augmenter(policy, crop, teaching.SEED, epoch)(images, rows)
        return np.stack([np.asarray(Image.fromarray(one).resize((32, 32))) for one in made]).astype(float)

    same = np.abs(seen(large, 256, 0) - seen(small, 128, 0)).mean()
    assert same < 6
    if policy != "none":
        assert np.abs(seen(large, 256, 0) - seen(small, 128, 1)).mean() > 2 * same


def test_a_teacher_of_another_size_teaches_and_what_varies_otherwise_there_is_refused(trained: Artifact) -> None:
    small = trained.model_copy(update={"preprocess": resized(trained.preprocess, 20)})
    teaching.check_teacher(trained, small, "standard")
    with pytest.raises(ChainError, match="by other rules at another size") as caught:
        teaching.check_teacher(trained, small, "strong")
    assert caught.value.hint
    assert "augment=standard" in caught.value.hint
