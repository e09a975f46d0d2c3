"""look(): one decode gives every fact, the image rules their reason, and threads change nothing."""

import hashlib
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dedup.hashes import pdq256, phash64
from pagepairs.config import ScanConfig
from pagepairs.images import ImageError, decode, working_image
from pipeline.look import Look, look

CONFIG = ScanConfig()


def photo(width: int, height: int, seed: int = 0, form: str = "jpeg", **options: object) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(buffer, form, **options)
    return buffer.getvalue()


def test_every_fact_is_what_it_says() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    body = photo(640, 480, exif=exif)
    rgb = decode(body, max_bytes=10**7, max_pixels=10**7, timeout_s=60.0).rgb
    working = working_image(rgb)
    assert rgb.shape == (640, 480, 3)
    assert look(body, CONFIG) == Look(
        image_id=hashlib.sha256(body).hexdigest(),
        width=480,
        height=640,
        format="jpeg",
        phash=phash64(working),
        pdq=pdq256(working)[0],
        texture=100,
        reason="",
    )


def test_a_large_photo_keeps_its_size_and_nearly_its_hash() -> None:
    body = photo(2400, 1600)
    seen = look(body, CONFIG)
    whole = phash64(working_image(decode(body, max_bytes=10**7, max_pixels=10**7, timeout_s=60.0).rgb))
    assert (seen.width, seen.height) == (2400, 1600)
    assert (seen.phash ^ whole).bit_count() <= 2


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (photo(200, 200), ""),
        (photo(199, 300), "too_small"),
        (photo(600, 200), ""),
        (photo(601, 200), "aspect"),
    ],
)
def test_the_rules_name_their_reason(body: bytes, reason: str) -> None:
    assert look(body, CONFIG).reason == reason


def test_a_flat_image_has_no_texture() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (400, 300), (200, 10, 10)).save(buffer, "png")
    seen = look(buffer.getvalue(), CONFIG)
    assert (seen.texture, seen.reason) == (0, "low_texture")
    assert look(buffer.getvalue(), ScanConfig(min_texture=0)).reason == ""


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (ScanConfig(max_bytes=100), "too_many_bytes"),
        (ScanConfig(max_pixels=119_999), "too_many_pixels"),
        (ScanConfig(max_pixels=120_000), ""),
    ],
)
def test_limits_come_from_the_configuration(config: ScanConfig, reason: str) -> None:
    body = photo(400, 300)
    if not reason:
        assert look(body, config).reason == ""
        return
    with pytest.raises(ImageError) as caught:
        look(body, config)
    assert caught.value.reason == reason


def test_animations_follow_the_configuration() -> None:
    frames = [Image.open(io.BytesIO(photo(300, 300, seed))) for seed in (1, 2)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "gif", save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError) as caught:
        look(buffer.getvalue(), CONFIG)
    assert caught.value.reason == "animated"
    assert look(buffer.getvalue(), ScanConfig(animations="first-frame")).format == "gif"


def test_threads_see_the_same_on_real_images(shared_data: Path) -> None:
    paths = sorted((shared_data / "crawl_howtocook").rglob("*.jp*g"))[::4]
    bodies = [path.read_bytes() for path in paths]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda body: look(body, CONFIG), bodies * 2)) == [look(body, CONFIG) for body in bodies] * 2
