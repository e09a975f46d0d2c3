"""Which images and pairs are kept: one rule a file, each a plain function that returns a drop reason, or "" to keep.

A new rule about an image is a new file and one entry in IMAGE_RULES; sprite.py, which looks at the URL, is called by scan itself. Bytes and
pixels are limited before decoding, in `pagepairs.images`.
"""

from collections.abc import Callable

from filters.aspect import aspect
from filters.measured import Measured
from filters.shortest_side import shortest_side
from filters.texture import texture
from pagepairs.config import ScanConfig

IMAGE_RULES: tuple[Callable[[Measured, ScanConfig], str], ...] = (shortest_side, aspect, texture)
"""In the order applied: the first reason is the one that counts."""


def drop_reason(image: Measured, config: ScanConfig) -> str:
    """Returns the reason of the first rule that drops the image, "" if none does."""
    return next(filter(None, (rule(image, config) for rule in IMAGE_RULES)), "")
