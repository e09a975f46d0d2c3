"""Images whose vectors lie near each other, found by what they lie near instead of by comparing all with all.

A sample of the crawl's own vectors, one in 512, are the pivots. A vector stands in the buckets of the 4 pivots nearest to it (and of those
that are as near as the fourth), and the vectors of a bucket are compared. Crawls of up to 8 192 vectors are compared all with all; beyond,
a pair is missed where it shares none of the pivots: docs/log.md has the shares by cosine. A bucket that is too full is cut in the same way.

Cosines are float64 products of float16 vectors, which are exact: neither buckets nor pairs depend on the machine.
"""

from collections.abc import Iterator

import numpy as np

from pagepairs.keys import mix

PROBES = 4
"""Buckets of a vector: with 2, one pair in six at a cosine of 0.9 was missed among random vectors, with 4 one in fifty."""
ROWS_PER_PIVOT = 512
MAX_PIVOTS = 65_536
"""Every worker holds all pivots: 100 MB of 768 dimensions."""
SPLIT_ROWS = 8192
"""Vectors that are compared all with all: 50 billion products of 768 dimensions, a second of a core."""

_BLOCK_NUMBERS = 8_000_000


def is_pivot(id_hash: np.ndarray, vectors: int) -> np.ndarray:
    """Returns whether each image's vector is in the sample: bool of shape (N,).

    Args:
      id_hash: uint64 of shape (N,), of the images' ids.
      vectors: number of all vectors of the crawl.
    """
    if vectors <= SPLIT_ROWS:
        return np.zeros(len(id_hash), bool)
    share = min(1 / ROWS_PER_PIVOT, MAX_PIVOTS / vectors)
    return np.asarray(mix(id_hash) < np.uint64(share * 2**64))


def nearest_buckets(vectors_ND: np.ndarray, pivots_KD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns which vector stands in which bucket: two int64 arrays of one length, rows of both arguments, ordered by row.

    Args:
      vectors_ND: float16, of unit length along D.
      pivots_KD: float16, no two of them equal; without any, all vectors stand in bucket 0.
    """
    rows, buckets = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    if len(pivots_KD) == 0:
        return np.arange(len(vectors_ND)), np.zeros(len(vectors_ND), np.int64)
    pivots_DK = pivots_KD.astype(np.float64).T
    least = max(0, len(pivots_KD) - PROBES)
    for start in range(0, len(vectors_ND), step := max(1, _BLOCK_NUMBERS // len(pivots_KD))):
        cosine_BK = vectors_ND[start : start + step].astype(np.float64) @ pivots_DK
        row, bucket = np.nonzero(cosine_BK >= np.partition(cosine_BK, least, axis=1)[:, least, None])
        rows.append(start + row)
        buckets.append(bucket)
    return np.concatenate(rows), np.concatenate(buckets)


def alike_pairs(vectors_ND: np.ndarray, cut: float) -> tuple[np.ndarray, np.ndarray]:
    """Finds the pairs of vectors whose cosine is `cut` or more: two int64 arrays, left < right, each pair once, in their order.

    Args:
      vectors_ND: float16, of unit length along D; in an order that the machine does not decide, which a full bucket is cut by.
      cut: lowest cosine.
    """
    pieces = list(_alike(vectors_ND, np.arange(len(vectors_ND)), cut))
    none = np.empty(0, np.int64)
    left, right = (np.concatenate([none, *(piece[side] for piece in pieces)]) for side in (0, 1))
    pair = np.unique(left * max(1, len(vectors_ND)) + right)
    return np.divmod(pair, max(1, len(vectors_ND)))


def _alike(vectors_ND: np.ndarray, rows: np.ndarray, cut: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields pairs of `rows`, which are sorted; some pairs more than once."""
    if len(rows) <= SPLIT_ROWS:
        yield from _all_with_all(vectors_ND, rows, cut)
        return
    row, bucket = nearest_buckets(vectors_ND[rows], np.unique(vectors_ND[rows[::ROWS_PER_PIVOT]], axis=0))
    order = np.argsort(bucket, kind="stable")
    for members in np.split(rows[row[order]], np.flatnonzero(np.diff(bucket[order])) + 1):
        # Vectors that no pivots tell apart are nearly all alike.
        smaller = len(members) < 0.75 * len(rows)
        yield from _alike(vectors_ND, members, cut) if smaller else _all_with_all(vectors_ND, members, cut)


def _all_with_all(vectors_ND: np.ndarray, rows: np.ndarray, cut: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    wide_ND = vectors_ND[rows].astype(np.float64)
    step = max(1, _BLOCK_NUMBERS // max(1, len(rows)))
    for start in range(0, len(rows), step):
        one, two = np.nonzero(wide_ND[start : start + step] @ wide_ND[start:].T >= cut)
        after = two > one
        yield rows[start + one[after]], rows[start + two[after]]
