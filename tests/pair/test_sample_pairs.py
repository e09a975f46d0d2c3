import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagepairs.keys import mix
from pipeline import episodes
from pipeline.episodes import bottom_k, sample_pairs

UINT64 = st.integers(0, 2**64 - 1)


def hashes(count: int, seed: int = 0) -> np.ndarray:
    return mix(seed, np.arange(count, dtype=np.uint64))


def slow_mix(*values: int) -> int:
    return int(mix(*(np.array([value], np.uint64) for value in values))[0])


def slow_sample(page: int, images: list[int], pairs: int, seed: int) -> set[tuple[int, int]]:
    """The pairs with the lowest keys, one after the other."""
    keyed = [(slow_mix(seed, page, min(a, b), max(a, b)), i, j) for (i, a), (j, b) in itertools.combinations(enumerate(images), 2)]
    return {(i, j) for _, i, j in sorted(keyed)[:pairs]}


PAGES = st.lists(
    st.tuples(UINT64, st.lists(UINT64, min_size=2, max_size=6, unique=True)), min_size=1, max_size=6, unique_by=lambda page: page[0]
)


def sampled(pages: list[tuple[int, list[int]]], pairs: int, seed: int) -> list[set[tuple[int, int]]]:
    """Sampled pairs of each page, as positions in it."""
    size = np.array([len(images) for _, images in pages])
    page_hash = np.array([page for page, _ in pages], np.uint64)
    image_hash = np.array([image for _, images in pages for image in images], np.uint64)
    left, right = sample_pairs(page_hash, image_hash, size, pairs=pairs, seed=seed)
    starts = np.cumsum(size) - size
    owner = np.searchsorted(starts, left, side="right") - 1
    assert (owner == np.searchsorted(starts, right, side="right") - 1).all()
    found: list[set[tuple[int, int]]] = [set() for _ in pages]
    for page, a, b in zip(owner, left, right, strict=True):
        pair = (int(a - starts[page]), int(b - starts[page]))
        assert pair not in found[page]
        found[page].add(pair)
    return found


@given(PAGES, st.integers(1, 16), st.integers(0, 2**63 - 1))
@settings(deadline=None, max_examples=60)
def test_the_sample_is_that_of_plain_python(pages: list[tuple[int, list[int]]], pairs: int, seed: int) -> None:
    assert sampled(pages, pairs, seed) == [slow_sample(page, images, pairs, seed) for page, images in pages]


def test_a_sample_depends_neither_on_other_pages_nor_on_the_order_of_images(monkeypatch: pytest.MonkeyPatch) -> None:
    pages = [(int(page), [int(h) for h in hashes(9, int(page % 97))]) for page in hashes(40, 5)]
    together = sampled(pages, 7, 3)
    assert together == [sampled([page], 7, 3)[0] for page in pages]
    for (page, images), pairs in zip(pages, together, strict=True):
        mirrored = {(8 - b, 8 - a) for a, b in sampled([(page, images[::-1])], 7, 3)[0]}
        assert mirrored == pairs
    monkeypatch.setattr(episodes, "_CHUNK_NUMBERS", 100)
    assert sampled(pages, 7, 3) == together


def test_all_pairs_where_there_are_no_more_than_asked_for() -> None:
    pages = [(1, [5, 9, 7]), (2, [4, 8])]
    assert sampled(pages, 3, 0) == [{(0, 1), (0, 2), (1, 2)}, {(0, 1)}]
    assert [len(pairs) for pairs in sampled(pages, 2, 0)] == [2, 1]


def test_no_pages() -> None:
    left, right = sample_pairs(np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0, np.int64), pairs=3, seed=0)
    assert left.tolist() == right.tolist() == []


def test_the_largest_page_is_sampled_without_repeats() -> None:
    left, right = sample_pairs(hashes(1), hashes(2048, 1), np.array([2048]), pairs=5_000, seed=0)
    assert len({*zip(left.tolist(), right.tolist(), strict=True)}) == 5_000
    assert (left < right).all()


def chi_square(counts: list[int], expected: float) -> float:
    return math.fsum((count - expected) ** 2 / expected for count in counts)


def at_most(degrees: int) -> float:
    """Four standard deviations above the mean of a chi-square; the seeds are fixed, so the test cannot flicker."""
    return degrees + 4 * math.sqrt(2 * degrees)


def test_every_pair_is_sampled_equally_often() -> None:
    pages, images, pairs = 20_000, 5, 3
    counts = Counter(
        pair for page in sampled([(int(page), [int(h) for h in hashes(images)]) for page in hashes(pages, 1)], pairs, 0) for pair in page
    )
    # Without replacement the statistic shrinks by (N - n) / (N - 1); the bound for independent draws holds all the more.
    assert sorted(counts) == [*itertools.combinations(range(images), 2)]
    assert chi_square(list(counts.values()), pages * pairs / 10) < at_most(9)


def test_every_set_of_pairs_is_sampled_equally_often() -> None:
    """Without replacement means uniform over sets, not only over pairs."""
    pages = [(int(page), [int(h) for h in hashes(4)]) for page in hashes(12_000, 2)]
    sets = Counter(frozenset(page) for page in sampled(pages, 2, 9))
    assert len(sets) == math.comb(6, 2)
    assert chi_square(list(sets.values()), 12_000 / 15) < at_most(14)


def test_another_seed_is_another_sample_and_as_uniform() -> None:
    page = (7, [int(h) for h in hashes(5)])
    samples = [frozenset(sampled([page], 1, seed)[0]) for seed in range(3_000)]
    assert chi_square(list(Counter(samples).values()), 300) < at_most(9)


# The sample of images


@given(st.lists(st.tuples(st.integers(0, 3), UINT64), max_size=20, unique_by=lambda row: row[1]), st.integers(0, 5))
def test_bottom_k_marks_the_k_lowest_of_each_code(rows: list[tuple[int, int]], k: int) -> None:
    codes, values = np.array([row[0] for row in rows], np.int64), np.array([row[1] for row in rows], np.uint64)
    lowest = {(code, value) for code in {row[0] for row in rows} for value in sorted(v for c, v in rows if c == code)[:k]}
    assert bottom_k(codes, values, k).tolist() == [row in lowest for row in rows]


@given(
    st.lists(st.tuples(st.integers(0, 1), UINT64), max_size=20, unique_by=lambda row: row[1]),
    st.lists(st.integers(0, 2), min_size=20, max_size=20),
    st.integers(1, 4),
)
def test_bottom_k_of_bottom_ks_is_the_bottom_k(rows: list[tuple[int, int]], owners: list[int], k: int) -> None:
    """Each part may sample by itself: what the whole samples is among what the parts keep."""
    codes, values = np.array([row[0] for row in rows], np.int64), np.array([row[1] for row in rows], np.uint64)
    kept = np.zeros(len(rows), bool)
    for owner in range(3):
        mine = np.flatnonzero(np.array(owners[: len(rows)], np.int64) == owner)
        kept[mine[bottom_k(codes[mine], values[mine], k)]] = True
    again = np.zeros(len(rows), bool)
    again[np.flatnonzero(kept)[bottom_k(codes[kept], values[kept], k)]] = True
    assert again.tolist() == bottom_k(codes, values, k).tolist()


def test_bottom_k_of_keyed_hashes_keeps_every_image_equally_often() -> None:
    pages, images, k = 20_000, 6, 2
    codes = np.repeat(np.arange(pages), images)
    values = mix(4, np.repeat(hashes(pages), images), np.tile(hashes(images, 3), pages))
    counts = bottom_k(codes, values, k).reshape(pages, images).sum(axis=0)
    assert counts.sum() == pages * k
    assert chi_square(counts.tolist(), pages * k / images) < at_most(images - 1)
