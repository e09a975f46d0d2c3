"""Exact neighbours in feature arrays: float64 distances by difference, found through matrix products, in blocks of bounded memory.

A distance is *exact* here when it is the float64 sum of squared differences: two equal vectors lie at 0, and the distance of a pair is
the same number wherever it is needed. |a|^2 + |b|^2 - 2ab is ten times faster and loses exactly that. So products find every pair whose
outcome their rounding error leaves open, and only those few are computed again by difference.

Axes: N, M = vectors, D = width, Q = rows of a block.
"""

from collections.abc import Iterator

import numpy as np

_BLOCK_ENTRIES = 1 << 23  # of one block of distances: 64 MiB
_PAIR_ENTRIES = 1 << 21  # of one array of differences: 16 MiB
_UNIT = 2.0**-53


def squared_radii(vector_ND: np.ndarray, *, k: int) -> np.ndarray:
    """Returns the squared distance from each vector to the k-th nearest of the others, float64 (N,).

    Copies of a vector are others: k copies beside it give a radius of 0.

    Args:
      vector_ND: float64, finite.
      k: at least 1, less than N.
    """
    count = len(vector_ND)
    norm_N = _squared_norms(vector_ND)
    bound = _error_bound(norm_N, norm_N, vector_ND.shape[1])
    radius_N = np.empty(count)
    for rows in _blocks(count, count):
        near_QN = _products(vector_ND[rows], vector_ND, norm_N[rows], norm_N)
        own = np.arange(rows.start, rows.stop)
        near_QN[own - rows.start, own] = np.inf
        kth_Q = np.partition(near_QN, k - 1, axis=1)[:, k - 1]
        row, column = np.nonzero(near_QN <= kth_Q[:, None] + 2 * bound)  # at least k a row
        exact = _squared_differences(vector_ND, row + rows.start, vector_ND, column)
        first_Q = np.searchsorted(row, np.arange(len(own)))
        radius_N[rows] = exact[np.lexsort((exact, row))][first_Q + k - 1]
    return radius_N


def inside_any(query_MD: np.ndarray, centre_ND: np.ndarray, squared_radius_N: np.ndarray) -> np.ndarray:
    """Returns which vectors lie inside (<=) at least one ball, bool (M,).

    Args:
      query_MD: float64, finite.
      centre_ND: float64, finite; the centres of the balls.
      squared_radius_N: as `squared_radii` returns it.
    """
    norm_M, norm_N = _squared_norms(query_MD), _squared_norms(centre_ND)
    bound = _error_bound(norm_M, norm_N, query_MD.shape[1])
    inside_M = np.empty(len(query_MD), bool)
    for rows in _blocks(len(query_MD), len(centre_ND)):
        excess_QN = _products(query_MD[rows], centre_ND, norm_M[rows], norm_N)
        excess_QN -= squared_radius_N
        inside_Q = np.any(excess_QN < -bound, axis=1)
        open_Q = np.flatnonzero(~inside_Q)
        row, column = np.nonzero(excess_QN[open_Q] <= bound)
        row = open_Q[row]
        exact = _squared_differences(query_MD, row + rows.start, centre_ND, column)
        inside_Q[row[exact <= squared_radius_N[column]]] = True
        inside_M[rows] = inside_Q
    return inside_M


def nearest_by_cosine(query_MD: np.ndarray, base_ND: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns each vector's most similar base vector: int64 (M,) rows, the lowest of a tie, and float64 (M,) cosines.

    Args:
      query_MD: float64, of unit length along D.
      base_ND: float64, of unit length along D; N >= 1.
    """
    index_M, cosine_M = np.empty(len(query_MD), np.int64), np.empty(len(query_MD))
    for rows in _blocks(len(query_MD), len(base_ND)):
        cosine_QN = query_MD[rows] @ base_ND.T
        index_M[rows] = cosine_QN.argmax(axis=1)
        cosine_M[rows] = cosine_QN.max(axis=1)
    return index_M, cosine_M


def _blocks(rows: int, columns: int) -> Iterator[slice]:
    step = max(1, _BLOCK_ENTRIES // columns)
    for start in range(0, rows, step):
        yield slice(start, min(rows, start + step))


def _squared_norms(vector_ND: np.ndarray) -> np.ndarray:
    norms: np.ndarray = np.einsum("nd,nd->n", vector_ND, vector_ND)
    return norms


def _products(query_QD: np.ndarray, base_ND: np.ndarray, norm_Q: np.ndarray, norm_N: np.ndarray) -> np.ndarray:
    """Returns squared distances within `_error_bound`, float64 (Q, N)."""
    distance_QN: np.ndarray = query_QD @ base_ND.T
    distance_QN *= -2
    distance_QN += norm_Q[:, None]
    distance_QN += norm_N
    return distance_QN


def _error_bound(norm_M: np.ndarray, norm_N: np.ndarray, width: int) -> float:
    """Returns how far `_products` may lie from `_squared_differences`: twice the sum of both rounding errors.

    A sum of D products errs by at most about D u times the sum of their magnitudes; |ab| and |a-b|^2 are at most 1/2 and 2 (|a|^2 + |b|^2).
    """
    return float(8 * (width + 8) * _UNIT * (norm_M.max(initial=0.0) + norm_N.max(initial=0.0)))


def _squared_differences(a_ND: np.ndarray, row: np.ndarray, b_MD: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Returns the squared distance of each pair of rows, float64, summed in the same order wherever a pair stands."""
    squared = np.empty(len(row))
    step = max(1, _PAIR_ENTRIES // a_ND.shape[1])
    for start in range(0, len(row), step):
        pairs = slice(start, start + step)
        difference = a_ND[row[pairs]] - b_MD[column[pairs]]
        difference *= difference
        squared[pairs] = difference.sum(axis=1)
    return squared
