"""Drops icons, spacers and thumbnails."""

from filters.measured import Measured
from pagepairs.config import ScanConfig


def shortest_side(image: Measured, config: ScanConfig) -> str:
    """Returns too_small if the shortest side is below `min_side_px`."""
    return "too_small" if min(image.width, image.height) < config.min_side_px else ""
