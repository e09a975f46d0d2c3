"""What scan finds out about one image body, with one decode."""

import hashlib
from dataclasses import dataclass

from dedup.hashes import pdq256, phash64
from filters import drop_reason
from filters.measured import Measured
from pagepairs.config import ScanConfig
from pagepairs.images import WORKING_SIDE_PX, Decoded, decode, working_image
from pipeline.isolate import isolated


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One image; the names are those of the columns of images/."""

    image_id: str
    width: int
    height: int
    format: str
    phash: int
    pdq: bytes
    texture: int
    reason: str  # "" = kept by the image rules


def pixels(body: bytes, config: ScanConfig) -> Decoded:
    """Returns a whole image as the settings of scan allow, decoded in a child process where they say so; safe in threads.

    Raises:
      ImageError: if the body gives no pixels within the limits.
    """
    return isolated(_decode, body, config, 0, timeout_s=config.decode_timeout_s) if config.isolate else _decode(body, config, 0)


def look(body: bytes, config: ScanConfig) -> Look:
    """Returns the facts about an image, decoded in a child process where the settings say so; safe in threads.

    Raises:
      ImageError: if the body gives no pixels within the limits.
    """
    return isolated(_look, body, config, timeout_s=config.decode_timeout_s) if config.isolate else _look(body, config)


def _decode(body: bytes, config: ScanConfig, at_least_px: int) -> Decoded:
    return decode(
        body,
        max_bytes=config.max_bytes,
        max_pixels=config.max_pixels,
        timeout_s=config.decode_timeout_s,
        animations=config.animations,
        at_least_px=at_least_px,
    )


def _look(body: bytes, config: ScanConfig) -> Look:
    # Twice the working size: the hash stays as near to the full image's as without reduction, and a photo takes a third less time.
    image = _decode(body, config, 2 * WORKING_SIDE_PX)
    working = working_image(image.rgb)
    pdq, texture = pdq256(working)
    return Look(
        image_id=hashlib.sha256(body).hexdigest(),
        width=image.width,
        height=image.height,
        format=image.format,
        phash=phash64(working),
        pdq=pdq,
        texture=texture,
        reason=drop_reason(Measured(width=image.width, height=image.height, texture=texture), config),
    )
