"""The scale of similarity: edges at every hundredth and at the run's own band, and slots between and on them.

Slot 2k + 1 holds the similarities equal to edge k, slot 2k + 2 those between edges k and k + 1. So a band from edge i to edge j, both
included as in filters/band.py, is the slots 2i + 1 to 2j + 1: a count over slots is exact, not rounded to bins.

S = slots, N = pairs, P = pages.
"""

from collections.abc import Sequence

import numpy as np


def scale_edges(low: float, high: float) -> list[float]:
    """Returns the edges, ascending: every hundredth of [-1, 1], and the band where it lies between them."""
    by_value = {np.float32(edge): edge for edge in (low, high, *(round(i / 100 - 1, 2) for i in range(201)))}
    return [by_value[value] for value in sorted(by_value)]


def count_slots(edges: Sequence[float]) -> int:
    """Returns S; the first and the last slot hold what rounding put outside [-1, 1]."""
    return 2 * len(edges) + 1


def slots_of(similarity: np.ndarray, edges: Sequence[float]) -> np.ndarray:
    """Returns the slot of each float32 similarity, int64."""
    rounded = np.array(edges, np.float32)
    slot: np.ndarray = np.searchsorted(rounded, similarity, "left") + np.searchsorted(rounded, similarity, "right")
    return slot


def bins_of(slot: np.ndarray, edges: Sequence[float]) -> np.ndarray:
    """Returns the hundredth, in [0, 200), in which each slot lies; a similarity on an edge opens the bin above it."""
    whole = np.round((np.array(edges) + 1) * 100, 6)
    bins: np.ndarray = np.clip(np.floor(whole[np.clip((slot - 1) // 2, 0, len(edges) - 1)]).astype(np.int64), 0, 199)
    return bins


def gaps_of(page: np.ndarray, slot: np.ndarray, slots: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the gaps of pages: ranges of slots without a pair, as long as they can be.

    A band that lies inside a gap leaves its page without a pair; the gaps of a page do not overlap, so pages can be summed over gaps.

    Args:
      page: int64 of shape (N,), in [0, P), every page at least once.
      slot: int64 of shape (N,).
      slots: S.

    Returns:
      The page of each gap, and first * S + last, both int64.
    """
    pages = int(page.max()) + 1 if len(page) else 0
    taken = np.unique(page * slots + slot)
    every = np.arange(pages)
    # Every page gets a mark before the first and after the last slot; what lies between two marks is a gap.
    owner = np.concatenate([every, every, taken // slots])
    mark = np.concatenate([np.full(pages, -1), np.full(pages, slots), taken % slots])
    order = np.lexsort((mark, owner))
    owner, mark = owner[order], mark[order]
    first, last = mark[:-1] + 1, mark[1:] - 1
    inside = (owner[:-1] == owner[1:]) & (first <= last)
    return owner[:-1][inside], first[inside] * slots + last[inside]
