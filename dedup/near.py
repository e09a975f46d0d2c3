"""Images whose hashes lie near each other, found by what the hashes share instead of by comparing all with all.

Near means: the 64-bit hashes differ in at most 6 bits and the PDQ hashes in at most 48. Of 209 photos, recompressed, shrunk, squashed or
grey copies are within both 99 times of 100, and no two different photos; the share for each kind of change stands in docs/log.md.

A 64-bit hash is cut into 4 bands of 16 bits, and images that share a band are compared. What that guarantees: every near pair within 3
bits is found, because 3 bits cannot change 4 bands. Of near pairs with 4 to 6 bits those are found whose differences leave one band
alone; which ones does not depend on what else is in the crawl. A bucket that is too full to compare all with all is split by its other
48 bits, without losing a pair: in 8 pieces of 6 bits, 6 differing bits leave at least 2 pieces alone.
"""

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from dedup.hashes import hamming64, hamming256
from pagepairs.keys import mix

NEAR_BITS = 6
"""Of the 64-bit hash, inclusive."""
NEAR_PDQ_BITS = 48
"""Of PDQ, inclusive: a second opinion, as 6 of 64 bits alone find 25 to 130 false partners an image in a crawl of a billion."""
BANDS = 4
SPLIT_ROWS = 2048
"""A bucket with more rows is split: 28 sorted copies of its rows cost less than comparing all with all."""

_BAND_BITS = np.uint64(16)
_PIECES, _PIECE_BITS = 8, np.uint64(6)


def band_values(phash: np.ndarray, band: np.ndarray | int) -> np.ndarray:
    """Returns the 16 bits of a band, 0 (the lowest bits) to 3, of each hash: uint64, element by element."""
    values: np.ndarray = (phash >> (np.asarray(band, np.uint64) * _BAND_BITS)) & np.uint64(0xFFFF)
    return values


def bucket_hash(phash: np.ndarray, band: np.ndarray | int) -> np.ndarray:
    """Returns the uint64 that decides which worker compares the images that share a band."""
    return mix(np.asarray(band, np.uint64), band_values(phash, band))


def near_in_buckets(band: np.ndarray, phash: np.ndarray, pdq: np.ndarray, *, split_rows: int = SPLIT_ROWS) -> tuple[np.ndarray, np.ndarray]:
    """Finds the near pairs among rows that share a band, each pair in the lowest band that it shares.

    So all buckets of all bands together, wherever each is compared, give every pair once.

    Args:
      band: uint8 of shape (N,), 0 to 3: by which band a row stands in its bucket; an image has one row a band.
      phash: uint64 of shape (N,).
      pdq: uint8 of shape (N, 32).
      split_rows: largest bucket that is compared all with all; decides time only.

    Returns:
      Two int64 arrays of one length: the rows of each pair, in no order.
    """
    key = (band.astype(np.uint64) << _BAND_BITS) | band_values(phash, band)
    order = np.argsort(key, kind="stable")
    key = key[order]
    size = np.searchsorted(key, key, side="right") - np.searchsorted(key, key, side="left")
    small, large = order[size <= split_rows], order[size > split_rows]
    pieces = [_confirm(left, right, band, phash, pdq) for left, right in _close_pairs(key[size <= split_rows], small, phash)]
    pieces += [_confirm(left, right, band, phash, pdq) for left, right in _split_pairs(key[size > split_rows], large, band, phash)]
    none = np.empty(0, np.int64)
    left, right = (np.concatenate([none, *(piece[side] for piece in pieces)]) for side in (0, 1))
    return left, right


def _close_pairs(key: np.ndarray, rows: np.ndarray, phash: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the pairs of `rows` of equal key whose 64-bit hashes are near; `key` is sorted.

    Step s compares each row with the s-th after it.
    """
    end = np.searchsorted(key, key, side="right")
    ordered = phash[rows]
    first, step = np.arange(len(key)), 1
    while len(first := first[first + step < end[first]]):
        near = first[hamming64(ordered[first], ordered[first + step]) <= NEAR_BITS]
        yield rows[near], rows[near + step]
        step += 1


def _split_pairs(key: np.ndarray, rows: np.ndarray, band: np.ndarray, phash: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields what `_close_pairs` would, of buckets that are too full for it: by any two pieces of the other bits that both rows share."""
    if len(rows) == 0:
        return
    others = np.zeros(len(rows), np.uint64)
    for turn in range(1, BANDS):
        others = (others << _BAND_BITS) | band_values(phash[rows], (band[rows] + turn) % BANDS)
    piece_PN = np.stack([(others >> (np.uint64(piece) * _PIECE_BITS)) & np.uint64(63) for piece in range(_PIECES)])
    at = np.empty(len(phash), np.int64)
    at[rows] = np.arange(len(rows))
    for one, other in combinations(range(_PIECES), 2):
        inner = (key << np.uint64(12)) | (piece_PN[one] << _PIECE_BITS) | piece_PN[other]
        order = np.argsort(inner, kind="stable")
        for left, right in _close_pairs(inner[order], rows[order], phash):
            shared = piece_PN[:other, at[left]] == piece_PN[:other, at[right]]
            lowest = shared.sum(axis=0) == 1  # `one` is shared; any other below `other` would have found the pair before
            yield left[lowest], right[lowest]


def _confirm(left: np.ndarray, right: np.ndarray, band: np.ndarray, phash: np.ndarray, pdq: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keeps the pairs that PDQ confirms and that share no lower band."""
    good = hamming256(pdq[left], pdq[right]) <= NEAR_PDQ_BITS
    left, right = left[good], right[good]
    differing = phash[left] ^ phash[right]
    again = np.zeros(len(left), bool)
    for lower in range(BANDS - 1):
        again |= (band_values(differing, lower) == 0) & (lower < band[left])
    return left[~again], right[~again]
