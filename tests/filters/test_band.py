"""The similarity band."""

import numpy as np
import pytest

from filters.band import in_band


def test_both_bounds_are_inclusive_in_float32() -> None:
    low, high = np.float32(0.3), np.float32(0.9)
    similarity = np.array([-1, np.nextafter(low, -1), low, 0.5, high, np.nextafter(high, 1), 1, np.nan], np.float32)
    want = ["below_low", "below_low", "", "", "", "above_high", "above_high", "below_low"]
    assert in_band(similarity, 0.3, 0.9).tolist() == want


def test_no_pairs_give_no_reasons() -> None:
    assert in_band(np.empty(0, np.float32), 0.3, 0.9).tolist() == []


def test_other_widths_are_refused() -> None:
    with pytest.raises(ValueError, match="float32, not float64"):
        in_band(np.zeros(1), 0.3, 0.9)
