"""Hostile bytes: decode() gives pixels or an ImageError, says nothing on standard error and takes no time."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pagepairs.images import ImageError, decode, sniff

REASONS = {"empty_body", "not_an_image", "unsupported_format", "broken_image", "too_many_pixels", "animated", "decode_timeout"}
WEBP = b"RIFF\x40\0\0\0WEBP"
HEADS = [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", WEBP + b"VP8 ", WEBP + b"VP8X", b"BM", b"\0\0\0\x18ftypavif", b"<"]


def _samples() -> list[bytes]:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8))
    kinds = [("jpeg", {}), ("jpeg", {"progressive": True}), ("webp", {}), ("webp", {"lossless": True})]
    bodies = []
    for form, options in [*kinds, ("png", {}), ("gif", {}), ("bmp", {}), ("avif", {})]:
        buffer = io.BytesIO()
        image.save(buffer, form, **options)
        bodies.append(buffer.getvalue())
    return bodies


SAMPLES = _samples()


def outcome(body: bytes) -> str:
    try:
        decoded = decode(body, max_bytes=100_000, max_pixels=1_000_000, timeout_s=20.0)
    except ImageError as error:
        return error.reason
    assert decoded.rgb.shape == (decoded.height, decoded.width, 3)
    return ""


@settings(max_examples=300, deadline=2000)
@given(head=st.sampled_from([b"", *HEADS]), tail=st.binary(max_size=400))
def test_random_bytes_give_a_reason(head: bytes, tail: bytes) -> None:
    assert outcome(head + tail) in REASONS | {""}


@settings(max_examples=500, deadline=2000)
@given(data=st.data(), body=st.sampled_from(SAMPLES))
def test_flipped_bits_give_pixels_or_a_reason(data: st.DataObject, body: bytes) -> None:
    flips = data.draw(st.lists(st.integers(0, 8 * len(body) - 1), min_size=1, max_size=4))
    damaged = bytearray(body)
    for flip in flips:
        damaged[flip // 8] ^= 1 << flip % 8
    assert outcome(bytes(damaged)) in REASONS | {""}


@settings(max_examples=300)
@given(st.binary(max_size=64))
def test_sniffing_never_fails(body: bytes) -> None:
    assert isinstance(sniff(body), str)


def test_nothing_is_written_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(1)
    for body in SAMPLES:
        for _ in range(150):
            damaged = bytearray(body)
            damaged[int(rng.integers(len(body)))] ^= 1 << int(rng.integers(8))
            outcome(bytes(damaged))
            outcome(body[: int(rng.integers(len(body)))])
    assert capfd.readouterr() == ("", "")
