"""A head on frozen features: the best there is, of a network like any other, made once and whatever happens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression

from torchstone.core import tables
from torchstone.core.errors import ConfigError
from torchstone.core.run import Run
from torchstone.core.values import Artifact, Candidate
from torchstone.data import findings
from torchstone.data.preprocess import default_preprocess
from torchstone.evaluate import backbone
from torchstone.evaluate.predict import answer
from torchstone.models import store, zoo
from torchstone.models.deployable import Deployable
from torchstone.stages.read import Data
from torchstone.train import logistic, probe, recipes, stage
from torchstone.train.observe import Epoch, Observer, Step
from torchstone.train.recipe import Recipe

WIDTH, CLASSES = 12, 4


def scattered(images: int, views: int = 1) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Vectors around one point a class, ``views`` of each image; and labels, not all alike often."""
    draws = np.random.default_rng(1)
    labels = draws.choice(CLASSES, images, p=(0.4, 0.3, 0.2, 0.1))
    points = 3 + draws.normal(size=(CLASSES, WIDTH))
    rows = np.repeat(labels, views)
    return (points[rows] + 1.5 * draws.normal(size=(len(rows), WIDTH))).astype(np.float32), rows


@pytest.mark.parametrize("l2", [0.1, 1e-3])
def test_the_fit_is_that_of_scikit_learn(l2: float) -> None:
    vectors, labels = scattered(300)
    head = logistic.Fit(vectors, labels, None, logistic.Problem(recipes.probe(), CLASSES)).to(l2)
    centred = vectors - vectors.mean(0)
    centred /= np.sqrt(np.square(centred).sum(1).mean())
    theirs = LogisticRegression(C=1 / (l2 * len(vectors)), tol=1e-8, max_iter=5000).fit(centred, labels)
    ours = torch.softmax(torch.from_numpy(head.logits(vectors)), 1).numpy()
    np.testing.assert_allclose(ours, theirs.predict_proba(centred), atol=2e-3)


def test_a_head_without_a_bias_has_none() -> None:
    vectors, labels = scattered(200)
    head = logistic.best_head(vectors, labels, logistic.Problem(recipes.probe(), CLASSES, with_bias=False))
    assert not head.bias.any()
    assert (head.logits(vectors).argmax(1) == labels).mean() > 0.6


def test_noise_is_fitted_less_than_what_can_be_learned() -> None:
    """The restraint is chosen by images that a fit has not seen."""
    vectors, labels = scattered(300)
    wrong = np.random.default_rng(0).permutation(labels)
    learned = logistic.best_head(vectors, labels, logistic.Problem(recipes.probe(), CLASSES))
    nothing = logistic.best_head(vectors, wrong, logistic.Problem(recipes.probe(), CLASSES))
    assert nothing.l2 >= 10 * learned.l2


def test_classes_of_one_image() -> None:
    """Nobody can be asked about the other images of a class that has one: the strongest restraint is taken."""
    vectors, _ = scattered(5)
    alone = logistic.best_head(vectors, np.arange(5), logistic.Problem(recipes.probe(), 5))
    assert alone.l2 == logistic.L2S[0]
    assert (alone.logits(vectors).argmax(1) == np.arange(5)).all()
    vectors, labels = scattered(60)
    some = logistic.best_head(
        np.concatenate([vectors, vectors[:1] + 5]),
        np.append(labels, CLASSES),
        logistic.Problem(recipes.probe(), CLASSES + 1),
    )
    assert some.logits(vectors[:1] + 5).argmax() == CLASSES


def test_views_of_one_image_are_never_on_both_sides() -> None:
    """Two equal views of each image choose the same restraint as one: it would be the least if a fit saw the other."""
    vectors, labels = scattered(150)
    wrong = np.random.default_rng(0).permutation(labels)
    once = logistic.best_head(vectors, wrong, logistic.Problem(recipes.probe(), CLASSES))
    twice = logistic.best_head(
        np.repeat(vectors, 2, axis=0), np.repeat(wrong, 2), logistic.Problem(recipes.probe(), CLASSES), views=2
    )
    assert twice.l2 == once.l2


def test_weights_of_classes_help_the_rare_one() -> None:
    vectors, labels = scattered(400)
    plain = logistic.best_head(vectors, labels, logistic.Problem(recipes.probe(), CLASSES))
    weights = torch.tensor([0.5, 0.5, 0.5, 8.0])
    weighted = logistic.best_head(vectors, labels, logistic.Problem(recipes.probe(), CLASSES, weights=weights))
    assert (weighted.logits(vectors).argmax(1) == 3).sum() > (plain.logits(vectors).argmax(1) == 3).sum()


class Watching(Observer):
    def __init__(self) -> None:
        self.seen: list[str] = []
        self.logits = np.zeros(0)
        self.images = 0

    def begin(self, job: object) -> None:
        self.seen.append("begin")

    def step(self, step: Step) -> None:
        self.seen.append("step")
        self.images = len(step.losses)

    def epoch(self, epoch: Epoch) -> dict[str, float]:
        self.seen.append("epoch")
        self.logits = epoch.logits
        return {"watched": 1.0}

    def end(self, best_epoch: int, answers: NDArray[np.float32]) -> None:
        self.seen.append("end")


@pytest.fixture(scope="module")
def source(trained: Artifact) -> str:
    return str(trained.directory / store.WEIGHTS)


@pytest.fixture(scope="module")
def probed(
    data: Data, source: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Artifact, Watching, stage.TrainRequest]:
    """The digits' LeNet-5 with its head found anew."""
    watching = Watching()
    recipe = recipes.probe().model_copy(update={"precision": "f32"})
    request = stage.TrainRequest(model="lenet5", weights=source, recipe=recipe)
    run = Run(tmp_path_factory.mktemp("probe"))
    return stage.train(request, data.catalog, data.split, run, observers=[watching]), watching, request


def test_the_result_is_a_network_like_any_other(
    probed: tuple[Artifact, Watching, stage.TrainRequest], data: Data, source: str
) -> None:
    artifact, watching, _ = probed
    val = data.sets(artifact, "val")["val"]
    found = answer(Candidate(name="torch", artifact=artifact, runtime="torch"), val, "val")
    np.testing.assert_allclose(found.scores, watching.logits, atol=1e-3 * np.abs(watching.logits).max())
    history, header = tables.read(artifact.directory / "history.parquet")
    assert history["val_top1"].to_list() == [pytest.approx(100 * (found.scores.argmax(1) == val.labels).mean())]
    assert history["val_top1"][0] > 93
    assert header["best_epoch"] == 1
    for name in ("train_loss", "train_top1", "val_loss", "val_macro_f1", "val_balanced_accuracy", "lr", "seconds"):
        assert np.isfinite(history[name].to_list()).all()
    before, after = store.load_state(Path(source)), store.load_state(artifact.directory / store.WEIGHTS)
    head, _ = zoo.head(store.load_network(artifact))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"{head}.weight", f"{head}.bias"}


def test_who_watches_is_told_of_one_epoch(probed: tuple[Artifact, Watching, stage.TrainRequest], data: Data) -> None:
    artifact, watching, _ = probed
    assert watching.seen == ["begin", "step", "epoch", "end"]
    assert watching.images == data.split.sizes["train"]
    assert tables.read(artifact.directory / "history.parquet")[0]["watched"].to_list() == [1.0]


def test_the_coach_has_nothing_against_it(probed: tuple[Artifact, Watching, stage.TrainRequest]) -> None:
    assert (probed[0].directory / "findings.json").exists()
    assert [finding.check for finding in findings.load(probed[0].directory) if finding.severity != "info"] == []


def test_the_same_request_gives_the_same_weights(
    probed: tuple[Artifact, Watching, stage.TrainRequest], data: Data, tmp_path: Path
) -> None:
    again = stage.train(probed[2], data.catalog, data.split, Run(tmp_path))
    assert again.files == probed[0].files


def test_interrupted_features_go_on(
    probed: tuple[Artifact, Watching, stage.TrainRequest], data: Data, tmp_path: Path
) -> None:
    """Of 40 vectors and a half, the first 32 are kept: whole batches, so that nothing else comes out."""
    images = data.sets(probed[0], "val")["val"]
    model = store.load(probed[0])
    backbone.take_head(model.network)
    forward = backbone.in_torch(model, "f32")
    whole = np.array(probe.features(forward, images, tmp_path / "whole.npy"))
    content = bytearray((tmp_path / "whole.npy").read_bytes())
    row = 4 * whole.shape[1]
    header = len(content) - whole.size * 4
    content[header : header + 4] = np.float32(7).tobytes()
    (tmp_path / "half.partial").write_bytes(content[: header + 40 * row + row // 2])
    half = probe.features(forward, images, tmp_path / "half.npy")
    assert half[0, 0] == 7
    assert np.array_equal(half.ravel()[1:], whole.ravel()[1:])
    assert not list(tmp_path.glob("*.partial"))


def test_a_mirrored_view_stands_after_its_image(
    probed: tuple[Artifact, Watching, stage.TrainRequest], data: Data, tmp_path: Path
) -> None:
    images = data.sets(probed[0], "calib")["calib"]
    both = probe.features(lambda batch: batch[:, 0, :, 0].astype(np.float32), images, tmp_path / "both.npy", views=2)
    shown = images.images(slice(None))
    assert np.array_equal(both[0::2], shown[:, 0, :, 0])
    assert np.array_equal(both[1::2], shown[:, 0, ::-1, 0])


@pytest.mark.parametrize("name", ["lenet5", "timm:mobilenetv3_small_050", "timm:resnetv2_50d_gn", "timm:vgg11"])
def test_the_head_of_any_network_comes_off_and_goes_on(name: str) -> None:
    if name != "lenet5":
        pytest.importorskip("timm")
    torch.manual_seed(0)
    model = Deployable(zoo.build(name, classes=CLASSES), default_preprocess(64 if name != "lenet5" else 32)).eval()
    size = 64 if name != "lenet5" else 32
    pixels = torch.randint(0, 255, (2, size, size, 3), dtype=torch.uint8)
    probe._check_head(model, pixels)
    with probe._headless(model.network) as layer, torch.inference_mode():
        vectors = model(pixels).numpy()
    assert zoo.head(model.network)[1] is layer
    draws = np.random.default_rng(0)
    head = logistic.Head(
        draws.normal(size=(CLASSES, vectors.shape[1])).astype(np.float32),
        draws.normal(size=CLASSES).astype(np.float32),
        0.0,
    )
    probe._put(model.network, head)
    with torch.inference_mode():
        np.testing.assert_allclose(model(pixels).numpy(), head.logits(vectors), rtol=1e-3, atol=1e-3)


def test_a_network_that_goes_on_after_its_last_layer_is_refused() -> None:
    """SqueezeNet's last convolution sees a map, and what it finds is cut at zero and averaged."""
    pytest.importorskip("torchvision")
    model = Deployable(zoo.build("torchvision:squeezenet1_1", classes=CLASSES), default_preprocess(64)).eval()
    with pytest.raises(ConfigError, match="more than one linear layer") as refused:
        probe._check_head(model, torch.randint(0, 255, (2, 64, 64, 3), dtype=torch.uint8))
    assert "freeze=backbone" in (refused.value.hint or "")


@pytest.mark.openvino
def test_a_network_that_openvino_does_not_take_is_seen_by_torch(
    probed: tuple[Artifact, Watching, stage.TrainRequest],
    data: Data,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("openvino")

    def refusing(*_: object) -> object:
        raise RuntimeError("Unsupported operator: aten::magic\nand much more")

    monkeypatch.setattr(backbone, "_converted", refusing)
    artifact, _, request = probed
    again = stage.train(request, data.catalog, data.split, Run(tmp_path))
    assert "aten::magic" in capsys.readouterr().err
    before, after = (store.load_state(it.directory / store.WEIGHTS) for it in (artifact, again))
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0.05, atol=0.02 * tensor.abs().max().item())


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"mixup": 0.2}, "mixup = 0.2 means nothing to a probe"),
        ({"epochs": 3}, "epochs = 3 means nothing"),
        ({"lr": 0.1}, "lr = 0.1 means nothing"),
        ({"augment": "light"}, "augment = 'light' means nothing"),
        ({"freeze": ("conv1",)}, "freeze"),
    ],
)
def test_what_a_probe_would_not_listen_to_is_refused(change: dict[str, object], expected: str, source: str) -> None:
    recipe = Recipe.model_validate({**dict(recipes.probe()), **change})
    with pytest.raises(ConfigError, match=expected):
        stage.check(stage.TrainRequest(model="lenet5", weights=source, recipe=recipe))


@pytest.mark.parametrize("change", [{}, {"augment": "standard"}, {"label_smoothing": 0.1, "workers": 2}])
def test_what_it_listens_to_is_not(change: dict[str, object], source: str) -> None:
    recipe = Recipe.model_validate({**dict(recipes.probe()), **change})
    stage.check(stage.TrainRequest(model="lenet5", weights=source, recipe=recipe))


def test_a_probe_without_weights_is_refused() -> None:
    with pytest.raises(ConfigError, match="no weights yet"):
        stage.check(stage.TrainRequest(model="lenet5", recipe=recipes.probe()))


@pytest.mark.parametrize("option", ["fit_head", "freeze_norms"])
def test_what_builds_on_weights_needs_some(option: str) -> None:
    request = stage.TrainRequest(model="lenet5", recipe=Recipe().model_copy(update={option: True}))
    with pytest.raises(ConfigError, match=option):
        stage.check(request)


def test_a_training_by_steps_begins_with_the_fitted_head(data: Data, trained: Artifact, tmp_path: Path) -> None:
    """Nothing is trained at a rate of zero, and the fresh head is as good as a probe."""
    names, bodies = zip(*store.load_state(trained.directory / store.WEIGHTS).items(), strict=True)
    head, _ = zoo.head(store.load_network(trained))
    torn = {name: body for name, body in zip(names, bodies, strict=True) if not name.startswith(f"{head}.")}
    path = tmp_path / "backbone.safetensors"
    save_file(torn, path)
    recipe = Recipe(epochs=1, lr=1e-12, fit_head=True, precision="f32", augment="none", weight_decay=0)
    request = stage.TrainRequest(model="lenet5", weights=str(path), recipe=recipe)
    artifact = stage.train(request, data.catalog, data.split, Run(tmp_path / "run"))
    assert tables.read(artifact.directory / "history.parquet")[0]["val_top1"][0] > 93
