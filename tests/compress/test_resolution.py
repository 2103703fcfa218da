"""Another size of images: the network sees them, the judge measures it on them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from built import answers, made

from torchstone.compress import chain
from torchstone.compress.steps.resolution import resized
from torchstone.core.artifact import identified
from torchstone.core.errors import ChainError
from torchstone.core.values import Artifact, Candidate, MadeBy
from torchstone.data.augment import Augmenter
from torchstone.data.preprocess import default_preprocess
from torchstone.models import store, zoo
from torchstone.runtimes import golden, open_candidate
from torchstone.stages import clock, find
from torchstone.stages.read import Data
from torchstone.train.teaching import SEED


@pytest.fixture(scope="module")
def resnet20(data: Data, baseline: Candidate) -> Candidate:
    """With random weights, below the shared run: it takes images of any size."""
    place = data.run.artifacts / "resnet20-fresh"
    place.mkdir()
    torch.manual_seed(0)
    store.save(zoo.build("resnet20", classes=10), place / store.WEIGHTS)
    described = Artifact(
        id="", key="fresh", format="torch", files={}, architecture="resnet20", classes=baseline.artifact.classes,
        preprocess=baseline.artifact.preprocess, made_by=MadeBy(step="fresh", version=1),
        split_fingerprint=baseline.artifact.split_fingerprint,
    )  # fmt: skip
    artifact = identified(described, place)
    golden.seal(Candidate(name="torch", artifact=artifact, runtime="torch"), data.sets(artifact, "calib")["calib"])
    artifact.save(place / "artifact.json")
    return find.baseline_of(artifact)


def test_the_view_of_an_image_stays_the_same() -> None:
    small = resized(default_preprocess(224), 112)
    assert (small.crop, small.resize) == (112, 128)
    assert (resized(default_preprocess(32), 20).crop, resized(default_preprocess(32), 20).resize) == (20, 20)


def test_a_network_of_one_size_is_refused(baseline: Candidate, data: Data) -> None:
    with pytest.raises(ChainError, match="does not take images of 24 pixels"):
        made("resolution=24:epochs=0", baseline, data)
    with pytest.raises(ChainError, match="sees 32 pixels already"):
        made("resolution=32", baseline, data)
    with pytest.raises(ChainError, match="pixels"):
        chain.plan("resolution=4", check_packages=False)


def test_steps_and_judge_see_the_smaller_images(resnet20: Candidate, data: Data) -> None:
    small = made("resolution=16:epochs=0", resnet20, data)
    same = store.load_state(resnet20.artifact.directory / store.WEIGHTS)
    for name, value in store.load_state(small.artifact.directory / store.WEIGHTS).items():
        torch.testing.assert_close(value, same[name])
    assert data.sets(small.artifact, "calib")["calib"].images(slice(0, 3)).shape == (3, 16, 16, 3)
    golden.check(small.artifact.directory, small.artifact.preprocess, open_candidate(small))
    assert answers(small, data).scores.shape == (data.split.sizes["test"], 10)


def test_an_export_after_it_takes_them_too(resnet20: Candidate, data: Data) -> None:
    """Calibration as well, whose pixels no longer fit the baseline."""
    done = made("resolution=16:epochs=0+int8", resnet20, data)
    assert done.artifact.preprocess.crop == 16
    golden.check(done.artifact.directory, done.artifact.preprocess, open_candidate(done))


def test_it_learns_what_they_look_like(resnet20: Candidate, data: Data) -> None:
    tuned = made("resolution=16:epochs=3,lr=0.002", resnet20, data)
    assert (tuned.artifact.directory / "history.parquet").exists()
    kept = made("resolution=16:epochs=0", resnet20, data)
    found = [float((one.scores.argmax(1) == one.labels).mean()) for one in (answers(kept, data), answers(tuned, data))]
    assert found[1] > found[0] + 0.2


@pytest.mark.slow
def test_models_of_two_sizes_are_timed_on_the_same_images(resnet20: Candidate, data: Data) -> None:
    from torchstone.evaluate import timing

    small = made("resolution=16:epochs=0", resnet20, data)
    clock.measure(data, [resnet20, small], [small], None, "screening", 2)
    table = timing.load_timings(data.run.timings(small))
    paired = table.filter(table["rival"].is_not_null())  # not those of large batches
    assert set(paired["side"].to_list()) == {"candidate", "rival"}


def test_the_original_teaches_the_small_one(resnet20: Candidate, data: Data) -> None:
    """It sees the images at its own size; what it answers for the same images at 16 pixels is something else."""
    taught = made("resolution=16:epochs=0+distill=1:views=1", resnet20, data).artifact
    assert taught.preprocess.crop == 16
    assert "taught by resnet20 (as trained)" in taught.notes[-1]
    rows = np.arange(8)
    whole = data.sets(resnet20.artifact, "train")["train"].stored(rows)
    expected = open_candidate(resnet20)(Augmenter("light", 32, SEED, 0)(whole, rows))["logits"]
    kept = [np.load(path)[:8] for path in (data.run.cache / "steps" / "teachers").glob("*/view-0.npy")]
    assert any(np.allclose(one, expected, atol=1e-3) for one in kept), "asked for the whole images"
    assert made("resolution=16:epochs=0", resnet20, data).free
