"""Drift: the tests against scipy's values, how often they are wrong, and a real server on shifted images."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from live import Live, serving, wait_for
from torchstone.core.contracts import ImageSet
from torchstone.core.errors import ArtifactError
from torchstone.core.values import Candidate
from torchstone.data.appearance import side_of
from torchstone.export import bundle, reference
from torchstone.export.reference import COLUMNS, Reference
from torchstone.serve import drift
from torchstone.stages.read import Data


@pytest.mark.parametrize("shape", [0.5, 1.0, 4.5, 50.0, 500.0])
def test_the_gamma_function_is_scipys(shape: float) -> None:
    for x in (1e-6, 0.1, 1.0, shape, shape + 1, 2 * shape + 10, 3 * shape + 60):
        expected = stats.gamma.sf(x, shape)
        assert drift.upper_gamma(shape, x) == pytest.approx(expected, rel=1e-9, abs=1e-13)


def test_chi_square_is_scipys() -> None:
    generator = np.random.default_rng(1)
    for _ in range(20):
        before, now = generator.multinomial(300, [0.5, 0.3, 0.2, 0]), generator.multinomial(900, [0.4, 0.4, 0.2, 0])
        expected = stats.chi2_contingency(np.stack([before, now])[:, :3], correction=False)[1]
        assert drift.chi_square(before.astype(float), now.astype(float)) == pytest.approx(expected, rel=1e-9)
    assert drift.chi_square(np.array([5.0, 0.0]), np.array([9.0, 0.0])) == 1.0


@pytest.mark.parametrize(("n", "m"), [(50, 50), (116, 1000), (1000, 1000)])
def test_kolmogorov_and_smirnovs_test_is_scipys(n: int, m: int) -> None:
    generator = np.random.default_rng(2)
    for shift in (0.0, 0.1, 0.3, 0.6):
        before, now = generator.normal(size=n), generator.normal(size=m) + shift
        expected = float(stats.ks_2samp(before, now, method="asymp").pvalue)  # pyright: ignore[reportAttributeAccessIssue]
        found = drift.kolmogorov_smirnov(before, now)
        if expected > 1e-12:
            assert np.log(found) == pytest.approx(np.log(expected), rel=0.06, abs=0.03)
        else:
            assert found < 1e-10


def test_no_parser_sees_bytes_from_outside_but_those_that_decode() -> None:
    """Pillow itself would open a PCX file, by a parser that nobody asked for."""
    content = {}
    for kind in ("PNG", "PCX"):
        file = io.BytesIO()
        Image.new("RGB", (8, 2)).save(file, kind)
        content[kind] = file.getvalue()
    assert side_of(content["PNG"]) == 4.0
    assert np.isnan(side_of(content["PCX"]))


def made(generator: np.random.Generator, images: int, *, darker: float = 0.0) -> np.ndarray:
    """Rows as they are noted: brightness with noise, coarse values, a side that all have in common, skewed classes."""
    light = generator.normal(0.5 - darker, 0.1, (images, 1))
    inputs = np.concatenate(
        [
            light + generator.normal(0, 0.02, (images, 3)),
            generator.gamma(4, 0.05, (images, 3)),
            np.round(generator.normal(0.7, 0.1, (images, 1)), 1),
            np.full((images, 1), 32.0),
        ],
        axis=1,
    )
    confidence = generator.beta(8, 1, (images, 1))
    label = generator.choice(10, (images, 1), p=[0.4, 0.2, 0.1, 0.1, 0.05, 0.05, 0.04, 0.03, 0.02, 0.01])
    return np.concatenate([inputs, confidence, label], axis=1).astype(np.float32)


def test_windows_of_the_same_images_are_silent() -> None:
    """The stated rate is a bound: with all quantities together at a level of 5 %, at most 5 % of 1,000 windows would be
    called different (and what chance adds, three deviations), PSI left aside; at the real level, none of them is."""
    generator = np.random.default_rng(3)
    alarms = strict = 0
    for _ in range(500):
        before = Reference(columns=COLUMNS, values=made(generator, 150))
        for _ in range(2):
            moved = drift.compare(before, made(generator, 300), level=0.05)
            alarms += any(one.p_value < 0.05 / len(COLUMNS) for one in moved)
            strict += any(one.p_value < drift.LEVEL / len(COLUMNS) for one in moved)
    assert alarms <= 1_000 * 0.05 + 3 * np.sqrt(1_000 * 0.05 * 0.95)
    assert strict == 0


def test_what_has_moved_is_named() -> None:
    generator = np.random.default_rng(4)
    before = Reference(columns=COLUMNS, values=made(generator, 150))
    moved = {one.quantity: one for one in drift.compare(before, made(generator, 300, darker=0.15))}
    assert {name for name, one in moved.items() if one.alarm} == {"red", "green", "blue"}
    other = made(generator, 300)
    other[:, COLUMNS.index("side")] = 24.0  # all had the same before: smaller ones must not fall into its bin
    other[:, COLUMNS.index("class")] = 9.0
    moved = {one.quantity: one for one in drift.compare(before, other)}
    assert {name for name, one in moved.items() if one.alarm} == {"side", "class"}


def test_what_was_not_measured_is_left_out() -> None:
    """Answers from a cache have a class and a confidence alone."""
    generator = np.random.default_rng(5)
    before = Reference(columns=COLUMNS, values=made(generator, 150))
    window = made(generator, 200)
    window[:, :-2] = np.nan
    assert {one.quantity for one in drift.compare(before, window)} == {"confidence", "class"}
    assert drift.furthest(before, window, [str(row) for row in range(200)])


def test_the_images_that_lie_furthest_out_come_first() -> None:
    generator = np.random.default_rng(6)
    before = Reference(columns=COLUMNS, values=made(generator, 150))
    window = made(generator, 100)
    window[17, COLUMNS.index("green")] = 3.0
    window[40, COLUMNS.index("side")] = 4_000.0
    first, second, *others = drift.furthest(before, window, [f"id{row}" for row in range(100)])
    assert (first["id"], first["quantity"], second["id"], second["quantity"]) == ("id40", "side", "id17", "green")
    assert len(others) == 8


# a real server


@pytest.fixture(scope="module")
def watched(exported: dict[str, Candidate], data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with a reference."""
    place = tmp_path_factory.mktemp("watched") / "digits"
    return bundle.write(exported["onnx"], None, place, val=lambda artifact: data.sets(artifact, "val")["val"])


def test_the_reference_belongs_to_the_bundle(watched: Path, tmp_path: Path, digits: Path) -> None:
    found = reference.load(watched)
    assert found is not None
    assert found.columns == COLUMNS
    assert found.values.shape == (116, len(COLUMNS))
    assert set(json.loads((watched / bundle.MANIFEST).read_text())) >= {
        "reference/images.npy", "reference/reference.json",
    }  # fmt: skip
    assert reference.load(digits) is None
    place = tmp_path / "reference"
    place.mkdir()
    for file in (watched / "reference").iterdir():
        (place / file.name).write_bytes(file.read_bytes()[:-1] + b" ")
    with pytest.raises(ArtifactError, match=r"images\.npy"):
        reference.load(tmp_path)


def state(live: Live) -> dict:
    return live.ask("/v1/drift").json["models"]["digits"]


def test_darker_images_raise_an_alarm_and_the_same_ones_do_not(watched: Path, seen: ImageSet, tmp_path: Path) -> None:
    """Two windows of test images are silent; then the same at half the light, and another mix of classes. A small copy
    is kept of those that are far out, because it was asked for."""
    usual = [seen.encoded(row) for row in range(400)]
    dark = [darker(picture) for picture, label in zip(usual, seen.labels, strict=False) if label in (1, 7)]
    options = (
        "--workers",
        "2",
        "--drift-rate",
        "100",
        "--drift-window",
        "60",
        "--drift-copies",
        "5",
        "--cache",
        "none",
    )
    with serving(watched, *options, "--state", str(tmp_path / "state")) as live:
        assert {"windows": 0, "filled": 0, "last": None}.items() <= state(live).items()
        ask_all(live, usual, until=lambda: state(live)["windows"] >= 2)
        found = state(live)
        assert (found["alarms"], found["last"]["alarm"], found["reference"], found["window"]) == (0, False, 116, 60)
        ask_all(live, dark, until=lambda: state(live)["alarms"] >= 2)  # the first may be of both kinds
        found = state(live)
        moved = {one["quantity"] for one in found["last"]["quantities"] if one["alarm"]}
        assert {"red", "green", "blue", "class"} <= moved
        assert all(len(one["id"]) == 32 for one in found["last"]["furthest"])
        assert wait_for(lambda: live.said("are not like validation's"))
        text = live.ask("/metrics").content.decode()
    assert 'torchstone_drift_alarm{model="digits"} 1.0' in text
    copies = list((tmp_path / "state" / "drift").glob("*.png"))
    assert 0 < len(copies) <= 10
    with Image.open(copies[0]) as copy:
        assert max(copy.size) <= 64


def darker(picture: bytes) -> bytes:
    with Image.open(io.BytesIO(picture)) as image:
        shade = Image.eval(image.convert("L"), lambda level: level // 3)
    buffer = io.BytesIO()
    shade.save(buffer, "PNG")
    return buffer.getvalue()


def ask_all(live: Live, images: list[bytes], until: Callable[[], bool]) -> None:
    """Ask for image after image, in turn, until something holds."""
    row = 0

    def step() -> bool:
        nonlocal row
        for _ in range(20):
            live.classify(images[row % len(images)])
            row += 1
        return until()

    assert wait_for(step, seconds=120)
