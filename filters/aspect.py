"""Drops banners and strips."""

from filters.measured import Measured
from pagepairs.config import ScanConfig


def aspect(image: Measured, config: ScanConfig) -> str:
    """Returns aspect if the longest side is more than `max_aspect` times the shortest."""
    sides = (image.width, image.height)
    return "aspect" if max(sides) > config.max_aspect * min(sides) else ""
