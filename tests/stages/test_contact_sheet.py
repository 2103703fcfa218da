"""The contact sheet of a policy."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from command_line import torchstone
from torchstone.core.errors import ConfigError, DataError
from torchstone.stages.augment import Options, augment


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of photos, each with a file that is no image."""
    root = tmp_path_factory.mktemp("photos")
    for name, pixels in zip(("flower", "temple & <sky>"), reversed(load_sample_images().images), strict=True):
        (root / name).mkdir()
        (root / name / "0.jpg").write_bytes(b"no image")
        for number in range(3):
            Image.fromarray(pixels[:, 40 * number :]).save(root / name / f"{number + 1}.jpg")
    return root


def test_a_sheet_has_a_row_an_image_and_a_column_an_epoch(photos: Path, tmp_path: Path) -> None:
    place = augment(str(photos), Options(policy="strong", images=4, views=3), out=tmp_path / "sheet.png")
    sheet = Image.open(place)
    assert sheet.width > 4 * 144
    assert sheet.height > 4 * 144
    assert sheet.width < 5 * 160
    assert len(sheet.getcolors(1 << 24) or []) > 10_000, "photos are on it"
    once_more = augment(str(photos), Options(policy="strong", images=4, views=3), out=tmp_path / "again.png")
    assert place.read_bytes() == once_more.read_bytes()
    other = augment(str(photos), Options(policy="strong", images=4, views=3, seed=1), out=tmp_path / "other.png")
    assert place.read_bytes() != other.read_bytes()


def test_the_page_holds_all_it_shows(photos: Path, tmp_path: Path) -> None:
    page = augment(str(photos), Options(policy="light", images=4, views=3), out=tmp_path / "sheet.html").read_text()
    assert len(re.findall(r'<img src="data:image/jpeg;base64,[\w+/=]+"', page)) == 16
    assert "temple &amp; &lt;sky&gt;" in page
    assert "<sky>" not in page
    assert not re.search(r'(src|href)="(?!data:)', page), "it asks for no other file"


def test_small_images_are_shown_as_they_are_and_every_class_comes(tmp_path: Path) -> None:
    """By default, at the size of a network for small images; an enlarged pixel is a square of one colour."""
    place = augment("digits", Options(policy="none", images=10, views=1), runs=tmp_path)
    assert place == tmp_path / "sheets" / "digits-none.png"
    pixels = np.asarray(Image.open(place))
    rows = (pixels != 255).any(axis=(1, 2))
    assert rows.sum() >= 10 * 128
    tile = pixels[108 : 108 + 128, 24 : 24 + 128]
    assert np.array_equal(tile, tile[::4, ::4].repeat(4, axis=0).repeat(4, axis=1))


@pytest.mark.parametrize(
    ("options", "out", "expected"),
    [
        (Options(policy="stron"), "sheet.png", "did you mean 'strong'"),
        (Options(policy="nowhere.toml"), "sheet.png", "does not exist"),
        (Options(), "sheet.pdf", "written as .png or .html"),
        (Options(images=0), "sheet.png", "shows 1 to 1000 pictures"),
        (Options(images=500, views=50), "sheet.png", "shows 1 to 1000 pictures"),
    ],
)
def test_what_cannot_be_shown_is_said(options: Options, out: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=expected):
        augment("digits", options, out=tmp_path / out)
    assert not list(tmp_path.iterdir())


def test_a_source_without_an_image_that_can_be_read(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "0.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="can be read"):
        augment(str(tmp_path / "data"), Options(), out=tmp_path / "sheet.png")


def test_the_verb(photos: Path, tmp_path: Path) -> None:
    """A policy of one's own, and one whose function fails: two lines, and nothing is left."""
    (tmp_path / "own.py").write_text(
        "def dark(image):\n    return image // 2\n\ndef bad(image):\n    return image[0]\n"
    )
    done = torchstone("augment", photos, "--policy", "own.py:dark", "--out", "sheet.html", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "sheet.html\n"), done.stderr
    done = torchstone("augment", photos, "--policy", "own.py:bad", "--out", "bad.html", cwd=tmp_path)
    assert done.returncode == 2
    assert "must give torch.uint8[3, height, width]" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "bad.html").exists()
