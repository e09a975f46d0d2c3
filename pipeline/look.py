"""What scan finds out about one image body, with one decode."""

import hashlib
from dataclasses import dataclass

from dedup.hashes import pdq256, phash64
from filters import drop_reason
from filters.measured import Measured
from pagepairs.config import ScanConfig
from pagepairs.images import WORKING_SIDE_PX, decode, working_image


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


def look(body: bytes, config: ScanConfig) -> Look:
    """Returns the facts about an image; safe in threads, and the interpreter lock is free while it decodes.

    Raises:
      ImageError: if the body gives no pixels within the limits.
    """
    image = decode(
        body,
        max_bytes=config.max_bytes,
        max_pixels=config.max_pixels,
        timeout_s=config.decode_timeout_s,
        animations=config.animations,
        # Twice the working size: the hash stays as near to the full image's as without reduction, and a photo takes a third less time.
        at_least_px=2 * WORKING_SIDE_PX,
    )
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
