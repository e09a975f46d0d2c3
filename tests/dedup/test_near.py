"""Near pairs equal brute force inside the guarantee, and are exactly those that share a band beyond it."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dedup.near import BANDS, NEAR_BITS, NEAR_PDQ_BITS, band_values, bucket_hash, near_in_buckets

FULL = 2**64 - 1


def found_pairs(phash: list[int], pdq: list[int], *, split_rows: int = 2048, parts: int = 1) -> list[tuple[int, int]]:
    """Every image once a band, the buckets dealt to `parts` workers; the pairs of all workers, sorted, repeats and all."""
    hashes = np.tile(np.array(phash, np.uint64), BANDS)
    packed = np.frombuffer(b"".join(value.to_bytes(32, "big") for value in pdq), np.uint8).reshape(-1, 32)
    band = np.repeat(np.arange(BANDS, dtype=np.uint8), len(phash))
    owner = bucket_hash(hashes, band) % np.uint64(parts)
    pairs = []
    for part in range(parts):
        rows = np.flatnonzero(owner == part)
        left, right = near_in_buckets(band[rows], hashes[rows], packed[rows % len(phash)], split_rows=split_rows)
        pairs += [(int(min(a, b)), int(max(a, b))) for a, b in zip(rows[left] % len(phash), rows[right] % len(phash), strict=True)]
    return sorted(pairs)


def brute_force(phash: list[int], pdq: list[int], *, bits: int = NEAR_BITS, banded: bool = True) -> list[tuple[int, int]]:
    found = []
    for a, b in itertools.combinations(range(len(phash)), 2):
        differing = phash[a] ^ phash[b]
        shared = any(not differing >> shift & 0xFFFF for shift in (0, 16, 32, 48))
        if differing.bit_count() <= bits and (pdq[a] ^ pdq[b]).bit_count() <= NEAR_PDQ_BITS and (shared or not banded):
            found.append((a, b))
    return found


def flipped(base: int, flips: frozenset[int]) -> int:
    return base ^ sum(1 << bit for bit in flips)


IMAGES = st.lists(
    st.tuples(
        st.builds(flipped, st.sampled_from([0, FULL, 0x0123456789ABCDEF]), st.frozensets(st.integers(0, 63), max_size=5)),
        st.builds(flipped, st.just(0), st.frozensets(st.integers(0, 255), max_size=60)),
    ),
    min_size=1,
    max_size=25,
)


@given(IMAGES, st.sampled_from([1, 2, 5, 2048]), st.sampled_from([1, 3]))
@settings(deadline=None)
def test_pairs_are_those_of_brute_force_that_share_a_band_however_buckets_are_split_or_dealt(
    images: list[tuple[int, int]], split_rows: int, parts: int
) -> None:
    phash, pdq = [list(values) for values in zip(*images, strict=True)]
    assert found_pairs(phash, pdq, split_rows=split_rows, parts=parts) == brute_force(phash, pdq)


@given(IMAGES)
@settings(deadline=None)
def test_inside_the_guarantee_nothing_is_missed(images: list[tuple[int, int]]) -> None:
    phash, pdq = [list(values) for values in zip(*images, strict=True)]
    assert set(brute_force(phash, pdq, bits=3, banded=False)) <= set(found_pairs(phash, pdq))


@pytest.mark.parametrize(("bits", "near"), [(6, [(0, 1)]), (7, [])])
def test_six_bits_are_near_and_seven_are_not(bits: int, near: list[tuple[int, int]]) -> None:
    assert found_pairs([0, (1 << bits) - 1], [0, 0]) == near


@pytest.mark.parametrize(("bits", "near"), [(48, [(0, 1)]), (49, [])])
def test_48_bits_of_pdq_are_near_and_49_are_not(bits: int, near: list[tuple[int, int]]) -> None:
    assert found_pairs([0, 1], [0, (1 << bits) - 1]) == near


@pytest.mark.parametrize(("differing", "near"), [(0x0001000100010000, [(0, 1)]), (0x0001000100010001, [])])
def test_three_bits_always_leave_a_band_and_four_may_not(differing: int, near: list[tuple[int, int]]) -> None:
    assert found_pairs([FULL, FULL ^ differing], [0, 0]) == near


def test_a_crowded_bucket_gives_the_same_pairs_split_or_whole() -> None:
    """3 000 hashes that share a band, as drawings of one layout do, in clusters a few bits wide."""
    rng = np.random.default_rng(0)
    centres = rng.integers(0, 2**48, 500, dtype=np.uint64) << np.uint64(16)
    phash = centres[rng.integers(0, 500, 3000)] | np.uint64(0xBEEF)
    for _ in range(4):
        phash ^= (np.uint64(1) << rng.integers(16, 64, 3000, dtype=np.uint64)) * rng.integers(0, 2, 3000, dtype=np.uint64)
    hashes = [int(value) for value in phash]
    whole = found_pairs(hashes, [0] * 3000, split_rows=100_000)
    assert found_pairs(hashes, [0] * 3000, split_rows=50) == whole
    distance = np.bitwise_count(phash[:, None] ^ phash)
    assert len(whole) == int((np.triu(distance, 1) * (distance <= NEAR_BITS) > 0).sum() + np.triu(distance == 0, 1).sum())


def test_hashes_that_thousands_of_images_share_are_compared_once_and_their_images_only_with_those_of_others() -> None:
    """Drawings of one layout: 3 000 images of one hash, which no PDQ joins, and one image near some of them."""
    rng = np.random.default_rng(1)
    pdq = [int.from_bytes(rng.bytes(32), "big") for _ in range(3000)]
    assert found_pairs([FULL] * 3000 + [FULL - 1], [*pdq, pdq[7] ^ 3]) == [(7, 3000)]
    assert found_pairs([FULL] * 3, [5, 5, 6]) == [(0, 1), (0, 2), (1, 2)]


def test_band_values_are_16_bits_each_lowest_first() -> None:
    phash = np.array([0x0123456789ABCDEF], np.uint64)
    assert [int(band_values(phash, band)[0]) for band in range(BANDS)] == [0xCDEF, 0x89AB, 0x4567, 0x0123]


def test_no_rows() -> None:
    left, right = near_in_buckets(np.empty(0, np.uint8), np.empty(0, np.uint64), np.empty((0, 32), np.uint8))
    assert (left.tolist(), right.tolist()) == ([], [])
