import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.band import in_band
from filters.calibration import bootstrap, inside, matching_cuts, ordered, overlap, rank_correlation, unordered

cosines = st.floats(-1, 1, width=32)
# Few values give ties; many give none.
scores = st.lists(st.tuples(st.one_of(cosines, st.sampled_from([-0.0, 0.0, 0.3, 0.5])), st.one_of(cosines, st.sampled_from([0.2, 0.6]))))


def brute_force(reference: np.ndarray, other: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """The highest low cut that enough pairs reach, and the lowest high cut that few enough exceed, by trying every similarity."""
    reach, exceed = (reference >= np.float32(low)).sum(), (reference > np.float32(high)).sum()
    lows = [value for value in other if (other >= value).sum() >= reach]
    highs = [value for value in other if (other > value).sum() <= exceed]
    return max(lows), min(highs)


@given(scores, st.tuples(cosines, cosines), st.integers(1, 7))
@settings(max_examples=300, deadline=None)
def test_cuts_equal_brute_force_however_the_pairs_are_cut_into_parts(pairs: list, band: tuple[float, float], size: int) -> None:
    low, high = min(band), max(band)
    reference, other = (np.array([pair[side] for pair in pairs], np.float32) for side in (0, 1))
    parts = [(reference[at : at + size], other[at : at + size]) for at in range(0, len(pairs), size)]
    if not inside(reference, low, high).any():
        with pytest.raises(ValueError, match="keeps none"):
            matching_cuts(lambda: parts, low, high)
        return
    cuts = matching_cuts(lambda: parts, low, high)
    assert (cuts.low, cuts.high) == brute_force(reference, other, low, high)
    assert cuts.at_least_low == (other >= np.float32(cuts.low)).sum() >= cuts.wanted_at_least_low
    assert cuts.above_high == (other > np.float32(cuts.high)).sum() <= cuts.wanted_above_high
    assert cuts.kept == inside(other, cuts.low, cuts.high).sum() == (in_band(other, cuts.low, cuts.high) == "").sum()
    assert cuts.kept >= inside(reference, low, high).sum()
    if len(set(other.tolist())) == len(other):
        assert cuts.kept == inside(reference, low, high).sum()


@given(st.lists(cosines, min_size=1))
def test_keys_keep_the_order_and_give_the_number_back(values: list[float]) -> None:
    numbers = np.array(values, np.float32)
    keys = ordered(numbers)
    assert (keys[np.argsort(numbers, kind="stable")] == np.sort(keys)).all()
    assert [unordered(int(key)) for key in keys] == numbers.tolist()


def test_the_same_encoder_gets_its_own_band_and_full_overlap() -> None:
    rng = np.random.Generator(np.random.Philox(key=1))
    similarity = rng.uniform(-1, 1, 5000).astype(np.float32)
    cuts = matching_cuts(lambda: [(similarity, similarity)], 0.3, 0.9)
    kept = inside(similarity, 0.3, 0.9)
    assert (cuts.low, cuts.high) == (similarity[similarity >= np.float32(0.3)].min(), similarity[similarity <= np.float32(0.9)].max())
    assert (cuts.kept, overlap(kept, inside(similarity, cuts.low, cuts.high))) == (kept.sum(), 1)
    assert rank_correlation((similarity, similarity)) == pytest.approx(1)


def test_a_shifted_scale_shifts_the_band() -> None:
    reference = np.linspace(0, 1, 1001).astype(np.float32)
    cuts = matching_cuts(lambda: [(reference, (0.5 + reference / 2).astype(np.float32))], 0.3, 0.9)
    assert (cuts.low, cuts.high, cuts.kept) == (pytest.approx(0.65, abs=1e-6), pytest.approx(0.95, abs=1e-6), 601)


def test_rank_correlation_needs_three_pairs_that_differ() -> None:
    two, same, other = np.float32([0, 1]), np.float32([1, 1, 1]), np.float32([1, 2, 4])
    assert (rank_correlation((two, two)), rank_correlation((same, other)), rank_correlation((other, same))) == (None, None, None)
    assert rank_correlation((other, -other)) == pytest.approx(-1)


def test_overlap() -> None:
    a, b, none = np.array([True, True, False]), np.array([False, True, True]), np.zeros(3, bool)
    assert (overlap(a, b), overlap(a, a), overlap(a, none), overlap(none, none)) == (1 / 3, 1, 0, 1)


def test_the_bootstrap_holds_the_cut_repeats_itself_and_widens_with_fewer_pages() -> None:
    rng = np.random.Generator(np.random.Philox(key=2))
    page = np.repeat(np.arange(400), 5)
    reference = rng.uniform(0, 1, 2000).astype(np.float32)
    other = (0.5 + reference / 2 + rng.normal(0, 0.02, 2000)).astype(np.float32)
    cuts = matching_cuts(lambda: [(reference, other)], 0.3, 0.9)
    found = bootstrap(page, (reference, other), 0.3, 0.9, resamples=100, seed=3)
    assert found == bootstrap(page, (reference, other), 0.3, 0.9, resamples=100, seed=3)
    assert found != bootstrap(page, (reference, other), 0.3, 0.9, resamples=100, seed=4)
    assert found.low[0] <= cuts.low <= found.low[1]
    assert found.high[0] <= cuts.high <= found.high[1]
    few = bootstrap(page // 40, (reference, other), 0.3, 0.9, resamples=100, seed=3)
    assert found.resamples == few.resamples == 100
    coarse = bootstrap(page[:50], (reference[:50], other[:50]), 0.3, 0.9, resamples=100, seed=3)
    assert coarse.low[1] - coarse.low[0] > found.low[1] - found.low[0]


def test_the_bootstrap_with_weights_equals_repeated_rows() -> None:
    """A resample by weights against pairs written out as often as their page was drawn."""
    page = np.array([0, 0, 1, 2, 2, 2])
    reference = np.float32([0.1, 0.5, 0.95, 0.4, 0.31, 0.2])
    other = np.float32([0.3, 0.7, 0.99, 0.6, 0.5, 0.65])
    expected = []
    for number in range(20):
        generator = np.random.Generator(np.random.Philox(key=np.array([5, number], np.uint64)))
        rows = np.concatenate([np.flatnonzero(page == drawn) for drawn in generator.integers(0, 3, 3)])
        if inside(reference[rows], 0.3, 0.9).any():
            cuts = matching_cuts(lambda rows=rows: [(reference[rows], other[rows])], 0.3, 0.9)
            expected.append((cuts.low, cuts.high))
    found = bootstrap(page, (reference, other), 0.3, 0.9, resamples=20, seed=5)
    ends = np.quantile(np.array(expected), [0.025, 0.975], axis=0)
    assert (found.low, found.high, found.resamples) == (tuple(ends[:, 0]), tuple(ends[:, 1]), len(expected))


def test_no_pair_gives_no_interval() -> None:
    nothing = np.empty(0, np.float32)
    found = bootstrap(np.empty(0, np.int64), (nothing, nothing), 0.3, 0.9, resamples=10, seed=0)
    assert (found.low, found.high, found.jaccard, found.resamples) == (None, None, None, 0)
