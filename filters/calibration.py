"""A similarity band for one encoder from another's: the cuts that keep as many pairs.

The rule (arXiv 2405.14857, appendix C, did it by hand): as many pairs lie at or above the low cut, and as many above the high cut, as
do for the reference. Cuts are exact values, found in two passes: a histogram over the first 16 bits of the ordered number, then one over
the last 16 bits of those in the bin where the cut lies. Histograms of parts are added.

N = pairs, G = pages.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from scipy import stats

_BINS = 1 << 16

Scores = tuple[np.ndarray, np.ndarray]
"""Similarities of some pairs by the reference and by the other encoder, float32 of shape (N,)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cuts:
    """A band and what it keeps of the pairs it was found on; both ends are kept."""

    low: float
    high: float
    pairs: int
    at_least_low: int
    """Pairs with a similarity at or above `low`: as many as the reference has, or more where several share the value of the cut."""
    above_high: int
    """Pairs above `high`: as many as the reference has, or fewer where several share the value of the cut."""
    wanted_at_least_low: int
    wanted_above_high: int

    @property
    def kept(self) -> int:
        """Pairs inside the band."""
        return self.at_least_low - self.above_high


def ordered(similarity: np.ndarray) -> np.ndarray:
    """Returns uint32 in the order of the float32 numbers; both zeros are one number."""
    bits = (similarity + np.float32(0)).view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


def unordered(key: int) -> np.float32:
    """Returns the number of a key of `ordered`."""
    bits = key & 0x7FFFFFFF if key >> 31 else ~key & 0xFFFFFFFF
    return np.uint32(bits).view(np.float32)


def matching_cuts(chunks: Callable[[], Iterable[Scores]], low: float, high: float) -> Cuts:
    """Finds the band of the other encoder that keeps as many pairs as [low, high] does of the reference.

    The low cut is the highest similarity that at least as many pairs reach; the high cut is the lowest similarity (of a pair) that at
    most as many pairs exceed.

    Args:
      chunks: gives all pairs, in parts of any size; called twice.
      low, high: of the reference; compared in float32, both ends kept.

    Raises:
      ValueError: if the reference keeps no pair.
    """
    coarse, reach, exceed, pairs = np.zeros(_BINS, np.int64), 0, 0, 0
    for reference, other in chunks():
        coarse += np.bincount(ordered(other) >> 16, minlength=_BINS)
        reach += int((reference >= np.float32(low)).sum())
        exceed += int((reference > np.float32(high)).sum())
        pairs += len(reference)
    if reach == exceed:
        raise ValueError(f"the reference keeps none of {pairs:,} pairs between {low} and {high}: there is nothing to match")
    # The pairs from the top whose similarities are the cuts.
    places = (reach, exceed + 1)
    bins = [_bin_of(coarse, place) for place in places]
    fine = np.zeros((2, _BINS), np.int64)
    for _, other in chunks():
        key = ordered(other)
        for number, found in enumerate(bins):
            fine[number] += np.bincount(key[key >> 16 == found] & 0xFFFF, minlength=_BINS)
    cuts, counts = [], []
    for number, (found, place) in enumerate(zip(bins, places, strict=True)):
        over = int(coarse[found + 1 :].sum())
        last = _bin_of(fine[number], place - over)
        cuts.append(float(unordered(found << 16 | last)))
        counts.append((over + int(fine[number][last:].sum()), over + int(fine[number][last + 1 :].sum())))
    return Cuts(
        low=cuts[0],
        high=cuts[1],
        pairs=pairs,
        at_least_low=counts[0][0],
        above_high=counts[1][1],
        wanted_at_least_low=reach,
        wanted_above_high=exceed,
    )


def _bin_of(counts: np.ndarray, place: int) -> int:
    """Returns the bin of the number at a place from the top, 1 being the largest."""
    from_top = np.cumsum(counts[::-1])
    return len(counts) - 1 - int(np.searchsorted(from_top, place))


def inside(similarity: np.ndarray, low: float, high: float) -> np.ndarray:
    """Returns which similarities a band keeps, as filters/band.py does."""
    kept: np.ndarray = (similarity >= np.float32(low)) & (similarity <= np.float32(high))
    return kept


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the Jaccard index of two sets of pairs, given as bool (N,); 1 where both are empty."""
    either = int((a | b).sum())
    return int((a & b).sum()) / either if either else 1.0


def rank_correlation(scores: Scores) -> float | None:
    """Returns Spearman's correlation; None where it has no value: fewer than three pairs, or all alike."""
    reference, other = (side.astype(np.float64) for side in scores)
    if len(reference) < 3 or np.ptp(reference) == 0 or np.ptp(other) == 0:
        return None
    return float(stats.spearmanr(reference, other).statistic)


@dataclass(frozen=True, slots=True, kw_only=True)
class Intervals:
    """The middle 95 % over resamples of the pages; None where too few of them keep a pair."""

    low: tuple[float, float] | None
    high: tuple[float, float] | None
    jaccard: tuple[float, float] | None
    resamples: int
    """Those in which the reference kept a pair."""


def bootstrap(page: np.ndarray, scores: Scores, low: float, high: float, *, resamples: int, seed: int) -> Intervals:
    """Draws the pages again, with replacement, and finds the cuts each time: pairs of a page resemble each other, so pages are drawn.

    Args:
      page: int64 of shape (N,), in [0, G), every page at least once; the same numbering gives the same intervals.
      scores: of the N pairs.
      low, high: of the reference.
      resamples: how often; the generator of each has the seed and its number as key.
    """
    reference, other = scores
    pages = int(page.max()) + 1 if len(page) else 0
    order = np.argsort(-other, kind="stable")
    sorted_other, sorted_page = other[order], page[order]
    reaches, exceeds = (reference >= np.float32(low))[order], (reference > np.float32(high))[order]
    kept = inside(reference, low, high)[order]
    found = []
    for number in range(resamples if pages else 0):
        generator = np.random.Generator(np.random.Philox(key=np.array([seed, number], np.uint64)))
        weight = np.bincount(generator.integers(0, pages, pages), minlength=pages)[sorted_page]
        reach, exceed = int(weight[reaches].sum()), int(weight[exceeds].sum())
        if reach == exceed:
            continue
        from_top = np.cumsum(weight)
        cut_low, cut_high = (sorted_other[np.searchsorted(from_top, place)] for place in (reach, exceed + 1))
        both = kept & inside(sorted_other, cut_low, cut_high)
        either = kept | inside(sorted_other, cut_low, cut_high)
        found.append((float(cut_low), float(cut_high), float(weight[both].sum() / weight[either].sum())))
    if len(found) < 2:
        return Intervals(low=None, high=None, jaccard=None, resamples=len(found))
    ends = np.quantile(np.array(found), [0.025, 0.975], axis=0)
    sides = [(float(first), float(last)) for first, last in ends.T]
    return Intervals(low=sides[0], high=sides[1], jaccard=sides[2], resamples=len(found))
