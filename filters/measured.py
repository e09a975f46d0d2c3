"""What the image rules look at."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Facts about one decoded image."""

    width: int
    height: int
    texture: int  # PDQ's quality, 0 (flat) to 100
