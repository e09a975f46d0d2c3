"""Pairs of alike vectors equal brute force, or, where a bucket is cut, nearly so; nothing that is not alike is ever found."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dedup.alike
from dedup.alike import PROBES, SPLIT_ROWS, alike_pairs, is_pivot, nearest_buckets


def unit(vectors_ND: np.ndarray) -> np.ndarray:
    return (vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True)).astype(np.float16)


def brute_force(vectors_ND: np.ndarray, cut: float) -> set[tuple[int, int]]:
    cosine_NN = vectors_ND.astype(np.float64) @ vectors_ND.astype(np.float64).T
    return set(zip(*np.nonzero(np.triu(cosine_NN >= cut, 1)), strict=True))


def planted(seed: int, *, images: int, width: int, cosine: float) -> np.ndarray:
    """Random vectors, and to each of the first half one at that cosine, so that all pairs are as hard as they can be."""
    rng = np.random.default_rng(seed)
    base = rng.standard_normal((images, width))
    base /= np.linalg.norm(base, axis=1, keepdims=True)
    aside = rng.standard_normal((images, width))
    aside -= (aside * base).sum(axis=1, keepdims=True) * base
    aside /= np.linalg.norm(aside, axis=1, keepdims=True)
    return unit(np.concatenate([base, cosine * base + np.sqrt(1 - cosine**2) * aside]))


@given(st.integers(0, 2**32 - 1), st.integers(0, 40), st.sampled_from([0.5, 0.8, 0.95]))
@settings(deadline=None)
def test_pairs_are_those_of_brute_force(seed: int, images: int, cut: float) -> None:
    vectors_ND = unit(np.random.default_rng(seed).standard_normal((images, 3)))
    left, right = alike_pairs(vectors_ND, cut)
    assert list(zip(left.tolist(), right.tolist(), strict=True)) == sorted(brute_force(vectors_ND, cut))


@pytest.mark.parametrize(("cosine", "share"), [(0.95, 0.99), (0.9, 0.95)])
def test_a_bucket_that_is_cut_loses_few_pairs_and_invents_none(cosine: float, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors_ND = planted(0, images=1500, width=64, cosine=cosine)
    monkeypatch.setattr(dedup.alike, "SPLIT_ROWS", 500)
    monkeypatch.setattr(dedup.alike, "ROWS_PER_PIVOT", 100)
    expected = brute_force(vectors_ND, cosine - 0.01)
    found = set(zip(*alike_pairs(vectors_ND, cosine - 0.01), strict=True))
    assert len(expected) >= 1500
    assert found <= expected
    assert len(found) >= share * len(expected)


def test_vectors_that_no_pivot_tells_apart_are_compared_all_with_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dedup.alike, "SPLIT_ROWS", 10)
    left, _ = alike_pairs(np.tile(unit(np.ones((1, 8))), (40, 1)), 0.9)
    assert len(left) == 40 * 39 // 2


def test_a_vector_stands_in_the_buckets_of_its_nearest_pivots_and_of_those_as_near() -> None:
    angles = np.radians([0, 10, 20, 30, 40, 50])
    pivots_KD = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float16)
    row, bucket = nearest_buckets(pivots_KD[[0, 5]], pivots_KD)
    assert (row.tolist(), bucket.tolist()) == ([0] * PROBES + [1] * PROBES, [0, 1, 2, 3, 2, 3, 4, 5])
    row, bucket = nearest_buckets(np.array([[1, 0, 0]], np.float16), np.eye(6, 3, dtype=np.float16)[:3].repeat(1, axis=0))
    assert bucket.tolist() == [0, 1, 2]
    ties = np.eye(7, dtype=np.float16)
    row, bucket = nearest_buckets(ties[:1], ties)
    assert bucket.tolist() == list(range(7))


def test_one_in_512_is_a_pivot_and_none_of_a_small_crawl() -> None:
    ids = np.random.default_rng(0).integers(0, 2**64, 100_000, dtype=np.uint64)
    assert not is_pivot(ids, SPLIT_ROWS).any()
    assert 150 < is_pivot(ids, 100_000).sum() < 250
    assert is_pivot(ids, 10**9).sum() < 20  # at most 65 536 of all


def test_no_vectors() -> None:
    left, right = alike_pairs(np.empty((0, 4), np.float16), 0.9)
    assert (left.tolist(), right.tolist()) == ([], [])
