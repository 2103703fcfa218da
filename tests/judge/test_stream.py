"""What is drawn is fixed here, number by number: a bound must come out the same years later."""

import numpy as np
import pytest

from torchstone.judge import bootstrap, stream
from torchstone.judge.stream import Stream


def test_the_numbers_of_a_seed_are_these() -> None:
    drawn = Stream(7)
    assert drawn.below(1000, (2, 4)).tolist() == [[625, 944, 897, 684], [775, 578, 225, 833]]
    assert drawn.poisson((10,)).tolist() == [0, 2, 0, 2, 2, 1, 0, 0, 0, 1]


def test_the_raw_bits_are_those_of_pcg64() -> None:
    """By PCG64's published multiplier and its output function, from the state that numpy seeds."""
    bits = np.random.PCG64(7)
    state, step = (bits.state["state"][name] for name in ("state", "inc"))
    state = (state * 0x2360ED051FC65DA44385DF649FCCF645 + step) % 2**128
    folded, turn = (state >> 64) ^ (state % 2**64), state >> 122
    expected = (folded >> turn | folded << (64 - turn)) % 2**64
    assert int(bits.random_raw()) == expected


def test_numbers_are_even_and_of_the_right_mean() -> None:
    drawn = Stream(1)
    counts = np.bincount(drawn.below(10, (50_000,)), minlength=10)
    assert counts.sum() == 50_000
    assert np.abs(counts - 5_000).max() < 5 * np.sqrt(4_500)
    numbers = drawn.poisson((50_000,))
    assert numbers.mean() == pytest.approx(1, abs=0.02)
    assert numbers.var() == pytest.approx(1, abs=0.04)
    for size in (0, 1, 3):
        assert drawn.below(5, (size,)).shape == drawn.poisson((size,)).shape == (size,)
    assert drawn.below(1, (9,)).tolist() == [0] * 9


def test_a_stream_is_known_by_what_it_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    before = bootstrap.draws()
    assert (before.bit_generator, before.resamples, before.numpy) == ("PCG64", bootstrap.RESAMPLES, np.__version__)
    monkeypatch.setattr(stream, "BIT_GENERATOR", np.random.Philox)
    stream._known_by.cache_clear()
    after = bootstrap.draws()
    stream._known_by.cache_clear()
    assert after.bit_generator == "Philox"
    assert after.stream != before.stream
