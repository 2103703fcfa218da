"""Over 600 broken files: none ends the process, hangs it or fills its memory, and what is not used is named.

Bits that were turned over are noticed where a format has checksums (all of PNG) or where the decoder stumbles. In the
others they may leave a picture that is simply another one, and nobody can tell: the tests say how many.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fuzzed
import numpy as np
import pytest
from PIL import Image

from torchstone.audit import audit
from torchstone.core.errors import DataError
from torchstone.data import catalog, jpeg
from torchstone.data.decode import decode_noting
from torchstone.data.preprocess import default_preprocess, with_decoder

PLAIN = default_preprocess(32)

READ = """
import json, resource, sys
from pathlib import Path
from torchstone.core import tables
from torchstone.data import catalog, parallel
from torchstone.data import findings
parallel.use_threads(4)
catalog.read(sys.argv[1], Path(sys.argv[3]))  # two sound images: what everything needs that is not broken
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = catalog.read(sys.argv[2], Path(sys.argv[3]) / "broken")
table, _ = tables.read(found.table)
print(json.dumps({
    "used": table["item"].to_list(),
    "converted": table["converted"].to_list(),
    "named": [item for one in findings.load(found.table.parent) if one.check == "unreadable" for item in one.items],
    "megabytes": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1000,
}))
"""


@pytest.fixture(scope="module")
def sound(photo: Image.Image) -> dict[str, bytes]:
    return fuzzed.originals(photo)


@pytest.fixture(scope="module")
def broken(photo: Image.Image) -> dict[str, bytes]:
    return fuzzed.everything(photo)


@pytest.fixture(scope="module")
def outcome(
    broken: dict[str, bytes], sound: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    """What reading all of them in a process of its own left behind."""
    place = tmp_path_factory.mktemp("fuzzed")
    for folder, files in (("sound", {"0.png": sound["rgb.png"]}), ("broken", broken | {"sound.png": sound["rgb.png"]})):
        for name in ("a", "b"):
            (place / folder / name).mkdir(parents=True)
        for name, content in files.items():
            (place / folder / "a" / name).write_bytes(content)
        (place / folder / "b" / "0.png").write_bytes(sound["rgb.png"])
    arguments = [sys.executable, "-c", READ, str(place / "sound"), str(place / "broken"), str(place / "data")]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr
    yield json.loads(done.stdout.splitlines()[-1])


def test_there_are_more_than_five_hundred(broken: dict[str, bytes]) -> None:
    assert len(broken) >= 500


def test_each_is_used_or_named(outcome: dict[str, Any], broken: dict[str, bytes]) -> None:
    used, named = set(outcome["used"]), set(outcome["named"])
    assert not used & named
    assert used | named == {f"a/{name}" for name in broken} | {"a/sound.png", "b/0.png"}


def test_what_is_certainly_broken_is_named(outcome: dict[str, Any], sound: dict[str, bytes]) -> None:
    expected = {f"a/{name}" for name, _ in fuzzed.unusable(sound)}
    # The last bytes of a TIFF file may be no part of the picture.
    assert {name for name in expected - set(outcome["named"]) if "tiff" not in name} == set()


def test_the_memory_is_bounded(outcome: dict[str, Any]) -> None:
    """The largest image that is decoded takes 89 MB as grey values, 358 as Pillow's RGB and 268 as an array."""
    assert outcome["megabytes"] < 1500


def test_every_bit_of_a_png_is_checked(sound: dict[str, bytes]) -> None:
    pngs = {name: content for name, content in sound.items() if name.endswith(".png")}
    for _, content in fuzzed.flipped(pngs, each=60, seed=3):
        with pytest.raises(DataError):
            decode_noting(content, PLAIN)


def test_how_many_flipped_bits_go_unnoticed(sound: dict[str, bytes]) -> None:
    """Files that are used although their picture is another one, of each hundred; the docstring of this file says why.
    The bounds are what was measured, rounded up."""
    wrong: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for name, content in fuzzed.flipped(sound, each=50, seed=4):
        kind = name.split("-")[-1]
        total[kind] += 1
        try:
            decoded = decode_noting(content, PLAIN)
        except DataError:
            continue
        same = np.array_equal(decoded.pixels, decode_noting(sound[kind], PLAIN).pixels)
        wrong[kind] += not same and "recovered" not in decoded.conversions
    share = {kind: wrong[kind] / total[kind] for kind in total}
    print({kind: f"{value:.0%}" for kind, value in share.items()})
    assert all(share[kind] == 0 for kind in share if kind.endswith(".png"))
    assert sum(wrong.values()) / sum(total.values()) < 0.7


@pytest.mark.skipif(not jpeg.same_as_pillow(), reason="needs simplejpeg, and Pillow with libjpeg-turbo")
def test_damage_that_pillow_passes_over_is_noted(sound: dict[str, bytes], photo_bytes: bytes) -> None:
    assert decode_noting(photo_bytes, PLAIN).conversions == ()
    for content in (sound["baseline.jpg"], photo_bytes):
        decoded = decode_noting(fuzzed.holed(content, 64), PLAIN)
        assert decoded.conversions == ("recovered",)
        np.testing.assert_array_equal(decoded.pixels, fuzzed.pixels_of(fuzzed.holed(content, 64)))


@pytest.mark.parametrize("decoder", ["pillow", "simplejpeg-torch"])
def test_what_is_decoded_without_pillow_is_what_pillow_decodes(sound: dict[str, bytes], decoder: str) -> None:
    """Broken JPEG files too: those that one of them refuses, the other may not show."""
    pytest.importorskip("simplejpeg")
    preprocess = PLAIN if decoder == "pillow" else with_decoder(PLAIN, "simplejpeg-torch")
    jpegs = {name: content for name, content in sound.items() if name.endswith(".jpg")}
    for _, content in fuzzed.flipped(jpegs, each=60, seed=5):
        try:
            decoded = decode_noting(content, preprocess)
        except DataError:
            with pytest.raises((OSError, SyntaxError, ValueError)):
                fuzzed.pixels_of(content)
            continue
        expected = fuzzed.pixels_of(content)
        if decoder == "pillow" or decoded.conversions:
            assert decoded.pixels.shape[:2] == expected.shape[:2] or "exif-rotated" in decoded.conversions
            if "exif-rotated" not in decoded.conversions:
                np.testing.assert_array_equal(decoded.pixels, expected)


def test_an_ordinary_progressive_file_has_few_scans(sound: dict[str, bytes]) -> None:
    content = sound["progressive.jpg"]
    assert not jpeg.too_many_scans(content)
    assert not jpeg.too_many_scans(fuzzed.with_scans(content, 80))
    assert jpeg.too_many_scans(fuzzed.with_scans(content, 101))
    # A film behind the picture, as phones append it, holds the bytes of markers by chance.
    assert not jpeg.too_many_scans(content + 500 * b"\xff\xda\x00\x08")


@pytest.mark.skipif(not jpeg.same_as_pillow(), reason="needs simplejpeg, and Pillow with libjpeg-turbo")
def test_the_audit_names_what_was_recovered(tmp_path: Path, photo_bytes: bytes) -> None:
    for name, content in (("a/sound.jpg", photo_bytes), ("b/holes.jpg", fuzzed.holed(photo_bytes, 64))):
        (tmp_path / "images" / name).parent.mkdir(parents=True)
        (tmp_path / "images" / name).write_bytes(content)
    found = audit(catalog.read(str(tmp_path / "images"), tmp_path / "data"), [])
    (damaged,) = [one for one in found if one.check == "damaged"]
    assert (damaged.items, damaged.severity, damaged.decision) == (("b/holes.jpg",), "warning", "review")
