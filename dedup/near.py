"""Images whose hashes lie near each other, found by what the hashes share instead of by comparing all with all.

Near means: the 64-bit hashes differ in at most 6 bits and the PDQ hashes in at most 48. Of 209 photos, recompressed, shrunk, squashed or
grey copies are within both 99 times of 100, and no two different photos; the share for each kind of change stands in docs/log.md.

A 64-bit hash is cut into 4 bands of 16 bits, and images that share a band are compared. What that guarantees: every near pair within 3
bits is found, because 3 bits cannot change 4 bands. Of near pairs with 4 to 6 bits those are found whose differences leave one band
alone; which ones does not depend on what else is in the crawl. (More tables would guarantee more: 28, one of every two of 8 pieces of 8
bits, all 6 bits, for seven times the rows.) What is compared are the distinct hashes of a bucket; PDQ then decides for the images that have
them. A bucket that is too full to compare all with all is split by its other 48 bits, without losing a pair: in 8 pieces of 6 bits, 6
differing bits leave at least 2 pieces alone.
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
MAX_EQUAL = 256
"""Images of one pHash that are compared with each other by PDQ; of more, `equal_stars` has left those whose PDQ differs."""

_BAND_BITS = np.uint64(16)
_PIECES, _PIECE_BITS = 8, np.uint64(6)
_CHUNK_PAIRS = 1_000_000


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
      split_rows: most distinct hashes of a bucket that are compared all with all; decides time only.

    Returns:
      Two int64 arrays of one length: the rows of each pair, in no order; none of more than MAX_EQUAL rows with one hash.
    """
    key = (band.astype(np.uint64) << _BAND_BITS) | band_values(phash, band)
    order = np.lexsort((phash, key))
    key, values = key[order], phash[order]
    first = np.flatnonzero(np.append(True, (key[1:] != key[:-1]) | (values[1:] != values[:-1]))[: len(order)])
    count = np.diff(first, append=len(order))
    key, values, band = key[first], values[first], band[order][first]
    size = np.searchsorted(key, key, side="right") - np.searchsorted(key, key, side="left")
    small, large = np.flatnonzero(size <= split_rows), np.flatnonzero(size > split_rows)
    alike = np.flatnonzero((count > 1) & (count <= MAX_EQUAL))
    pieces = [(alike, alike), *_close_pairs(key[small], small, values), *_split_pairs(key[large], large, band, values)]
    found = [np.empty((2, 0), np.int64)]
    for left, right in pieces:
        lowest = _is_lowest_band(band[left], values[left] ^ values[right])
        for one, two in _rows_of(first, count, left[lowest], right[lowest]):
            near = hamming256(pdq[order[one]], pdq[order[two]]) <= NEAR_PDQ_BITS
            found.append(np.stack([order[one[near]], order[two[near]]]))
    left, right = np.concatenate(found, axis=1)
    return left, right


def _rows_of(first: np.ndarray, count: np.ndarray, left: np.ndarray, right: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the rows of pairs of hashes, each of one hash with each of the other: those of hash h are first[h] to first[h] + count[h]."""
    one = np.repeat(first[left], count[left]) + _count_up(count[left])
    own, other = np.repeat(left == right, count[left]), np.repeat(right, count[left])
    chunk = np.cumsum(count[other]) // _CHUNK_PAIRS
    for rows in np.split(np.arange(len(one)), np.flatnonzero(np.diff(chunk)) + 1):
        times = count[other[rows]]
        again, two = np.repeat(one[rows], times), np.repeat(first[other[rows]], times) + _count_up(times)
        once = ~np.repeat(own[rows], times) | (two > again)
        yield again[once], two[once]


def _count_up(lengths: np.ndarray) -> np.ndarray:
    """Returns 0 to lengths[0] - 1, then 0 to lengths[1] - 1, ..."""
    counted: np.ndarray = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return counted


def _close_pairs(key: np.ndarray, rows: np.ndarray, phash: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the pairs of `rows` of equal key whose 64-bit hashes are near, and differ; `key` is sorted.

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


def _is_lowest_band(band: np.ndarray, differing: np.ndarray) -> np.ndarray:
    """Returns whether no lower band is shared by hashes that share `band` and differ in the bits `differing`."""
    lowest = np.ones(len(band), bool)
    for lower in range(BANDS - 1):
        lowest &= (band_values(differing, lower) != 0) | (lower >= band)
    return lowest
