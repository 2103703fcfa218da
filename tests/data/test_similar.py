"""Copies of a picture are found, other pictures are not, and nothing runs together into one cluster."""

from __future__ import annotations

import io
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from torchstone.data import parallel, similar
from torchstone.data.similar import SIDE, Similar, find, index, register, thumbnail

PIECES = 120


def digests_of(thumbnails: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Different for each row."""
    digests = np.zeros((len(thumbnails), 32), np.uint8)
    digests[:, :4] = np.arange(len(thumbnails), dtype="<u4")[:, None].view(np.uint8)
    return digests


def searched(images: list[Image.Image]) -> Similar:
    thumbnails = np.stack([thumbnail(image.convert("L")) for image in images])
    return find(thumbnails, digests_of(thumbnails))


@pytest.fixture(scope="module")
def pieces(photo: Image.Image) -> list[Image.Image]:
    """Pieces of the flower and of the temple that share nothing with each other."""
    from sklearn.datasets import load_sample_images

    both = [Image.fromarray(image) for image in load_sample_images().images]
    size = 48
    found = [
        image.crop((left, top, left + size, top + size))
        for image in both
        for top in range(0, image.height - size, size)
        for left in range(0, image.width - size, size)
    ]
    detail = [float(np.abs(np.diff(np.asarray(piece.convert("L"), np.int16))).mean()) for piece in found]
    return [found[row] for row in np.argsort(detail)[::-1][:PIECES]]


def jpeg(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=40)
    return Image.open(buffer).convert("RGB")


ALTERED = {
    "JPEG": jpeg,
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "smaller": lambda image: image.resize((30, 30), Image.Resampling.BILINEAR),
    "larger": lambda image: image.resize((96, 96), Image.Resampling.BICUBIC),
    "trimmed": lambda image: image.crop((4, 1, 46, 44)),
    "darker": lambda image: image.point([round(value * 0.7) for value in range(256)] * 3),
    "brighter": lambda image: image.point([min(255, round(value * 1.3)) for value in range(256)] * 3),
    "grey": lambda image: image.convert("L").convert("RGB"),
}


@pytest.fixture(scope="module")
def alone(pieces: list[Image.Image]) -> Similar:
    return searched(pieces)


def test_different_pictures_stay_apart(alone: Similar) -> None:
    assert len(alone.pairs) <= PIECES // 50
    assert np.bincount(alone.picture).max() <= 2


@pytest.mark.parametrize("how", ALTERED)
def test_copies_are_found(how: str, pieces: list[Image.Image], alone: Similar) -> None:
    copies = [ALTERED[how](piece) for piece in pieces[::3]]
    found = searched([*pieces, *copies])
    same = found.picture[PIECES:] == found.picture[:PIECES:3]
    assert same.mean() >= 0.94
    planted = (found.pairs >= PIECES).any(axis=1)
    assert (~planted).sum() <= len(alone.pairs)  # the copies do not change what else is the same
    originals = np.where(found.pairs >= PIECES, (found.pairs - PIECES) * 3, found.pairs)
    wrong = planted & (alone.picture[originals[:, 0]] != alone.picture[originals[:, 1]])
    assert wrong.sum() <= 1
    assert (found.scores >= similar.SAME).all()


def test_equal_pixels_are_one_picture_and_no_pair(pieces: list[Image.Image]) -> None:
    thumbnails = np.stack([thumbnail(piece.convert("L")) for piece in [*pieces[:20], *pieces[:5]]])
    digests = digests_of(thumbnails)
    digests[20:] = digests[:5]
    found = find(thumbnails, digests)
    assert found.picture[20:].tolist() == found.picture[:5].tolist()
    assert not len(found.pairs) or found.pairs.max() < 20


def test_plain_pictures_are_not_taken_for_each_other() -> None:
    random = np.random.default_rng(0)
    sky = np.linspace(150, 170, SIDE)[None, :, None] + np.zeros((300, SIDE, SIDE)) + random.normal(0, 0.5, (300, 1, 1))
    noisy = np.clip(sky + random.normal(0, 0.4, sky.shape), 0, 255).astype(np.uint8)
    found = find(noisy, digests_of(noisy))
    assert len(found.pairs) == 0
    assert len(np.unique(found.picture)) == 300


def test_frames_of_clouds_make_no_giant_cluster() -> None:
    """Soft shapes, each drawn anew: all alike, none the same."""
    random = np.random.default_rng(1)
    coarse = random.uniform(120, 220, (400, 4, 4)).astype(np.float32)
    clouds = np.stack(
        [np.asarray(Image.fromarray(one).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for one in coarse]
    )
    frames = np.clip(clouds + random.normal(0, 2, clouds.shape), 0, 255).astype(np.uint8)
    assert np.bincount(find(frames, digests_of(frames)).picture).max() <= 3


def test_a_crowd_of_alike_pictures_is_no_picture(pieces: list[Image.Image]) -> None:
    """Parts in front of a fixed camera: the same background, another thing in the middle."""
    random = np.random.default_rng(2)
    background = np.asarray(pieces[0].resize((SIDE, SIDE)).convert("L"))
    frames = np.repeat(background[None], 60, axis=0)
    frames[:, 10:22, 10:22] = random.integers(0, 256, (60, 12, 12), np.uint8)
    assert np.bincount(find(frames, digests_of(frames)).picture).max() <= 3


def test_a_pan_is_cut_where_the_first_frame_is_out_of_sight(photo: Image.Image) -> None:
    wide = photo.resize((640, 256))
    frames = [wide.crop((left, 0, left + 256, 256)) for left in range(0, 384, 16)]
    found = searched(frames)
    assert len(found.pairs) >= len(frames) - 2  # each frame and the next are the same picture
    sizes = np.bincount(found.picture)
    assert 2 <= sizes.max() <= 9  # 16 of 256 pixels a frame: none is in a cluster with one of which it shows half


def test_few_images() -> None:
    for count in (0, 1, 2):
        thumbnails = np.zeros((count, SIDE, SIDE), np.uint8)
        found = find(thumbnails, digests_of(thumbnails))
        assert (found.pairs.shape, found.scores.shape) == ((0, 2), (0,))
        assert found.picture.tolist() == list(range(count))


def test_images_of_a_few_pixels_are_not_compared(pieces: list[Image.Image]) -> None:
    thumbnails = np.stack([thumbnail(pieces[number].convert("L")) for number in (0, 0, 1)])
    thumbnails[1] += 1
    digests = digests_of(thumbnails)
    sides = np.full(3, similar.SMALLEST, np.int32)
    assert len(find(thumbnails, digests, sides).pairs) == 1
    assert len(find(thumbnails, digests, sides - 1).pairs) == 0
    assert find(thumbnails, digests, sides - [0, 1, 1]).pairs.tolist() == [[0, 1]], "a small copy of a larger one"


def test_the_order_of_the_images_changes_nothing_but_the_numbers(pieces: list[Image.Image]) -> None:
    images = [*pieces[:40], *(jpeg(piece) for piece in pieces[:10])]
    order = np.random.default_rng(3).permutation(len(images))
    first, other = searched(images), searched([images[row] for row in order])
    expected = {tuple(sorted(pair)) for pair in first.pairs.tolist()}
    assert {tuple(sorted(order[pair].tolist())) for pair in other.pairs} == expected


@given(st.floats(0, 0.1), st.floats(0, 0.1), st.floats(0, 0.1), st.floats(0, 0.1))
@settings(max_examples=50)
def test_registration_finds_what_is_left_by_trimming(left: float, right: float, top: float, bottom: float) -> None:
    import sklearn.datasets

    flower = Image.fromarray(sklearn.datasets.load_sample_images().images[1]).crop((170, 30, 490, 350)).convert("L")
    box = (50 + left * 200, 50 + top * 200, 250 - right * 200, 250 - bottom * 200)
    one = thumbnail(flower.crop((50, 50, 250, 250)))
    other = np.asarray(flower.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=box))
    assert register.scores(one[None], other[None])[0] > similar.SAME


def test_a_mirrored_address_is_that_of_the_mirror_image(pieces: list[Image.Image]) -> None:
    thumbnails = np.stack([thumbnail(piece.convert("L")) for piece in pieces[:10]])
    np.testing.assert_allclose(
        index.addresses(thumbnails, mirrored=True), index.addresses(thumbnails[:, :, ::-1]), atol=1e-5
    )


def test_candidates_are_pairs_of_the_rows_given(pieces: list[Image.Image]) -> None:
    thumbnails = np.stack([thumbnail(image.convert("L")) for piece in pieces[:50] for image in (piece, jpeg(piece))])
    rows = np.arange(10, 90)
    one, other, mirrored = index.taken_apart(index.candidates(thumbnails, rows), len(thumbnails))
    assert (one < other).all()
    assert one.min() >= 10 and other.max() < 90
    plain = set(zip(one[~mirrored].tolist(), other[~mirrored].tolist(), strict=True))
    assert {(row, row + 1) for row in range(10, 90, 2)} <= plain


def test_the_bounds_on_memory_change_no_candidate(pieces: list[Image.Image], monkeypatch: pytest.MonkeyPatch) -> None:
    thumbnails = np.stack([thumbnail(image.convert("L")) for piece in pieces for image in (piece, jpeg(piece))])
    rows = np.arange(len(thumbnails))
    at_once = index.candidates(thumbnails, rows)
    monkeypatch.setattr(index, "PRODUCTS", 40)
    monkeypatch.setattr(index, "WIDEST", 7)
    assert index.candidates(thumbnails, rows).tolist() == at_once.tolist()


def test_memory_is_bounded_where_all_pictures_fall_into_one_cell(pieces: list[Image.Image]) -> None:
    """Each of 3,000 with each other: 9 million scalar products, and as many places twice, if kept all at once."""
    alike = np.repeat(thumbnail(pieces[0].convert("L"))[None], 3000, axis=0)
    parallel.use_threads(1)
    tracemalloc.start()
    try:
        keys = index.candidates(alike, np.arange(len(alike)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        parallel.use_threads(None)
    assert len(keys) <= len(alike) * index.MOST * len(index.LOOKUPS)
    assert peak < 130e6


def family(piece: Image.Image, size: int, random: np.random.Generator) -> list[Image.Image]:
    """A picture and its copies, each trimmed, mirrored, brightened and compressed by chance."""
    found = [piece]
    for _ in range(size - 1):
        left, top, right, bottom = random.integers(0, 4, 4)
        copy = piece.crop((left, top, piece.width - right, piece.height - bottom))
        if random.random() < 0.5:
            copy = copy.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        factor = random.uniform(0.8, 1.2)
        found.append(jpeg(copy.point([min(255, round(value * factor)) for value in range(256)] * 3)))
    return found


def test_large_families_of_copies_are_found_or_named(pieces: list[Image.Image]) -> None:
    random = np.random.default_rng(4)
    families = [family(piece, 12, random) for piece in pieces[:8]]
    found = searched([image for images in families for image in images] + pieces[8:])
    of_copies = np.arange(8 * 12)
    joined = np.bincount(found.pairs.ravel(), minlength=len(found.picture)) > 0
    silent = [row for row in of_copies if not joined[row] and row not in found.crowded]
    assert len(silent) <= len(of_copies) // 10
    assert len(found.crowded)
    assert set(found.crowded.tolist()) <= set(of_copies.tolist())
    assert not len(searched(pieces).crowded)
