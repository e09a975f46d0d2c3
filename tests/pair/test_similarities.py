"""The claim: the float64 dot product of stored float16 vectors of unit length is exact, so no order and no machine can change it."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline import episodes
from pipeline.episodes import similarities

TINY = 2.0**-24  # the smallest float16 that is not zero, a subnormal
ULP_BELOW_ONE = 1 - 2.0**-11


def exact_dot(a: np.ndarray, b: np.ndarray) -> Fraction:
    return sum((Fraction(float(x)) * Fraction(float(y)) for x, y in zip(a, b, strict=True)), Fraction(0))


def nearest_float32(value: Fraction) -> np.float32:
    """Rounds half to even, with nothing but integers and neighbours."""
    guess = np.float32(float(value))
    around = [np.nextafter(guess, np.float32(-2)), guess, np.nextafter(guess, np.float32(2))]
    return min(around, key=lambda f: (abs(Fraction(float(f)) - value), int(np.float32(f).view(np.int32)) & 1))


def scored(vectors: np.ndarray) -> dict[tuple[int, int], np.float32]:
    """All pairs of one page."""
    left, right = np.triu_indices(len(vectors), 1)
    found = similarities(vectors, np.array([len(vectors)]), left, right)
    assert found.dtype == np.float32
    return dict(zip(zip(left.tolist(), right.tolist(), strict=True), found, strict=True))


def assert_exact(vectors: np.ndarray) -> None:
    for (i, j), value in scored(vectors).items():
        exact = exact_dot(vectors[i], vectors[j])
        products = vectors[i].astype(np.float64) * vectors[j].astype(np.float64)
        # Each product and each partial sum is a float64: fsum, any order and pairwise sums meet in one number.
        assert Fraction(math.fsum(products)) == exact
        assert Fraction(float(np.cumsum(products)[-1])) == exact
        assert Fraction(float(np.cumsum(np.sort(products))[-1])) == exact
        assert Fraction(float(np.cumsum(products[::-1])[-1])) == exact
        assert value == nearest_float32(exact)


def unit(vectors: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    return (vectors / np.where(norm, norm, 1)).astype(np.float16)


@pytest.mark.parametrize("width", [1, 3, 384, 768, 1024, 1536])
def test_random_unit_vectors(width: int) -> None:
    assert_exact(unit(np.random.default_rng(width).standard_normal((4, width))))


@pytest.mark.parametrize("spread", [3, 8, 12])
def test_unit_vectors_whose_numbers_span_all_magnitudes(spread: int) -> None:
    rng = np.random.default_rng(spread)
    assert_exact(unit(rng.standard_normal((4, 768)) * np.exp2(-spread * rng.random((4, 768)) * 2)))


def test_cancellation_leaves_the_last_bit() -> None:
    half = np.float16(math.sqrt(0.5))
    a = np.array([half, half, TINY, TINY] + [0] * 60, np.float16)
    b = np.array([half, -half, TINY, 0] + [0] * 60, np.float16)
    c = np.array([TINY, 0, half, -half] + [TINY] * 60, np.float16)
    assert scored(np.stack([a, b, c]))[0, 1] == np.float32(2.0**-48)
    assert_exact(np.stack([a, b, c]))


def test_large_and_tiny_products_interleaved_in_the_worst_order() -> None:
    rng = np.random.default_rng(0)
    a = np.full(1024, TINY, np.float16)
    b = np.full(1024, TINY, np.float16)
    a[::64], b[::64] = 0.25, 0.25 * rng.choice([-1, 1], 16)
    a[1::64] = b[1::64] = ULP_BELOW_ONE * 2.0**-6
    assert_exact(np.stack([a, b, b[::-1], -a]))


@given(
    hnp.arrays(
        np.float16,
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=12),
        elements=st.floats(-1, 1, width=16, allow_subnormal=True),
    )
)
@settings(deadline=None, max_examples=100)
def test_any_numbers_of_magnitude_one_at_most(vectors: np.ndarray) -> None:
    assert_exact(vectors)
    assert_exact(unit(vectors))


def test_subnormals_are_not_flushed_to_zero() -> None:
    vectors = np.full((2, 16), TINY, np.float16)
    assert scored(vectors) == {(0, 1): np.float32(16 * 2.0**-48)}


def test_permuted_columns_give_the_same_bytes() -> None:
    vectors = unit(np.random.default_rng(5).standard_normal((8, 768)))
    order = np.random.default_rng(6).permutation(768)
    left, right = np.triu_indices(8, 1)
    first, second = (similarities(v, np.array([8]), left, right).tobytes() for v in (vectors, vectors[:, order]))
    assert first == second


@pytest.mark.parametrize("numbers", [1, 5_000, 8_000_000])
def test_pages_of_many_sizes_are_scored_like_each_by_itself(numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    size = rng.integers(2, 7, 60)
    vectors = unit(rng.standard_normal((size.sum(), 24)))
    starts = np.cumsum(size) - size
    pairs = [(s + i, s + j) for s, n in zip(starts, size, strict=True) for i in range(n) for j in range(i + 1, n) if rng.random() < 0.6]
    pairs = [pairs[i] for i in rng.permutation(len(pairs))]
    left, right = np.array(pairs).T
    monkeypatch.setattr(episodes, "_CHUNK_NUMBERS", numbers)
    found = similarities(vectors, size, left, right)
    assert found.tolist() == [float(nearest_float32(exact_dot(vectors[a], vectors[b]))) for a, b in pairs]


def test_no_pairs() -> None:
    nothing = np.empty(0, np.int64)
    assert similarities(np.empty((0, 4), np.float16), nothing, nothing, nothing).tolist() == []
    assert similarities(np.zeros((2, 4), np.float16), np.array([2]), nothing, nothing).tolist() == []
