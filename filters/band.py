"""Keeps pairs that are neither unrelated nor near-duplicates."""

import numpy as np


def in_band(similarity: np.ndarray, low: float, high: float) -> np.ndarray:
    """Returns each pair's drop reason: below_low, above_high, or "" where low <= similarity <= high.

    Both bounds are inclusive and rounded to float32 first, as the similarities are; NaN is below_low.

    Args:
      similarity: float32, any shape.
      low: lowest cosine that is kept.
      high: highest cosine that is kept.
    """
    if similarity.dtype != np.float32:
        raise ValueError(f"similarities are float32, not {similarity.dtype}")
    above = np.where(similarity > np.float32(high), "above_high", "")
    return np.where(similarity >= np.float32(low), above, "below_low")
