"""Fuzzes the door between bytes and pixels, and what scan makes of an image."""

import io
from collections.abc import Callable
from typing import TypeVar

import atheris
import numpy as np
from harness import MAX_BYTES, PACKAGES, fuzz

with atheris.instrument_imports(include=PACKAGES):
    from PIL import Image

    from pagepairs.config import ScanConfig
    from pagepairs.images import ImageError, decode, sniff
    from pipeline.look import look

T = TypeVar("T")
CONFIG = ScanConfig(max_pixels=250_000, max_bytes=MAX_BYTES, animations="first-frame", decode_timeout_s=3.0)
REASONS = {"empty_body", "not_an_image", "unsupported_format", "broken_image", "too_many_pixels", "animated", "decode_timeout"}


def target(data: bytes) -> None:
    """The input is the image."""
    found = or_error(lambda: decode(data, max_bytes=MAX_BYTES, max_pixels=250_000, timeout_s=3.0))
    if found is not None:
        assert found.rgb.shape == (found.height, found.width, 3)
        assert (found.rgb.dtype, found.format) == (np.uint8, sniff(data))
    seen = or_error(lambda: look(data, CONFIG))
    if seen is not None:
        assert (len(seen.pdq), 0 <= seen.phash < 2**64, 0 <= seen.texture <= 100) == (32, True, True)


def or_error(function: Callable[[], T]) -> T | None:
    """Returns the result, or None where the image has a reason for giving none."""
    try:
        return function()
    except ImageError as error:
        error.detail.encode("utf-8")
        reason = error.reason
    assert reason in REASONS, reason
    return None


def seeds() -> list[bytes]:
    """Returns small images of every format that is decoded, and some that are not."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    saved: list[tuple[Image.Image, str, dict[str, object]]] = [
        *((image, "jpeg", options) for options in ({}, {"progressive": True}, {"exif": exif}, {"restart_marker_rows": 1})),
        *((image.convert(mode), "jpeg", {}) for mode in ("L", "CMYK")),
        *((image.convert(mode), "png", {}) for mode in ("RGB", "RGBA", "P", "1", "LA", "I;16")),
        *((image, "webp", options) for options in ({}, {"lossless": True}, {"exif": exif})),
        (image.convert("RGBA"), "webp", {"save_all": True, "append_images": [image.convert("RGBA").rotate(90)]}),
        (image, "gif", {"save_all": True, "append_images": [image.rotate(90)]}),
        *((image.convert(mode), "bmp", {}) for mode in ("RGB", "P", "1", "RGBA")),
        (image, "avif", {}),
    ]
    bodies = [b"<svg ", b"\n<!-- x --><html>", b"\0\0\0\x18ftypheic\0\0\0\0mif1", b"%PDF-1"]
    for picture, form, options in saved:
        buffer = io.BytesIO()
        picture.save(buffer, form, **options)
        bodies.append(buffer.getvalue())
    return bodies


if __name__ == "__main__":
    fuzz(target, seeds())
