"""Drops near-uniform images: their hashes and vectors resemble everything."""

from filters.measured import Measured
from pagepairs.config import ScanConfig


def texture(image: Measured, config: ScanConfig) -> str:
    """Returns low_texture if PDQ's quality is below `min_texture`."""
    return "low_texture" if image.texture < config.min_texture else ""
