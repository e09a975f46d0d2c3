"""The hashes equal their definitions, stay near the full image's, and the distances equal counting bit by bit."""

import io
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pdqhash
import pytest
from PIL import Image

from dedup.hashes import hamming64, hamming256, pdq256, phash64
from pagepairs.images import decode, working_image

Hasher = Callable[[np.ndarray], int]
PHOTOS = ("*.jpg", "*.jpeg", "*.png")


@pytest.fixture(scope="module")
def imagededup() -> Hasher:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its imports
        from imagededup.methods import PHash

        hasher = PHash(verbose=False)
    return lambda array: int(hasher.encode_image(image_array=array), 16)


@pytest.fixture(scope="module")
def photos(shared_data: Path) -> dict[str, bytes]:
    folders = [shared_data / "crawl_howtocook", shared_data / "bench_dreambooth"]
    paths = [path for folder in folders for end in PHOTOS for path in sorted(folder.rglob(end))]
    return {str(path.relative_to(shared_data)): path.read_bytes() for path in paths}


def pixels(body: bytes, at_least_px: int) -> np.ndarray:
    return decode(body, max_bytes=10**8, max_pixels=10**8, timeout_s=60.0, at_least_px=at_least_px).rgb


def bits(a: int, b: int) -> int:
    return (a ^ b).bit_count()


@pytest.mark.parametrize("shape", [(256, 256), (256, 341), (300, 256), (32, 32), (8, 9), (1, 1), (200, 1), (256, 2000)])
def test_phash_is_imagededups_on_random_arrays(imagededup: Hasher, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        array = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
        assert phash64(array) == imagededup(array)


@pytest.mark.parametrize("value", [0, 1, 127, 254, 255])
def test_phash_is_imagededups_on_flat_and_symmetric_arrays(imagededup: Hasher, value: int) -> None:
    flat = np.full((256, 300, 3), value, np.uint8)
    half = np.random.default_rng(value).integers(0, 256, (256, 128, 3), dtype=np.uint8)
    mirrored = np.concatenate([half, half[:, ::-1]], axis=1)
    for array in (flat, mirrored, np.tile(half, (1, 2, 1))):
        assert phash64(array) == imagededup(array)


def test_phash_is_imagededups_on_photos(imagededup: Hasher, photos: dict[str, bytes]) -> None:
    assert len(photos) > 150
    for name, body in photos.items():
        working = working_image(pixels(body, 512))
        assert phash64(working) == imagededup(working), name


def test_phash_stays_within_two_bits_of_the_full_files(imagededup: Hasher, photos: dict[str, bytes]) -> None:
    distances = {}
    for name, body in photos.items():
        distances[name] = bits(phash64(working_image(pixels(body, 512))), imagededup(pixels(body, 0)))
    # Drawings that are nearly mirror images: a third of the coefficients is nearly zero, as is their median, and any change flips some.
    drawings = {name for name in distances if "red_cartoon" in name}
    assert len(drawings) == 4
    photographs = Counter(distance for name, distance in distances.items() if name not in drawings)
    assert max(photographs) <= 2
    assert photographs[0] >= 0.9 * photographs.total()


def test_pdq_equals_the_librarys_on_an_image_of_its_own_size() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (64, 64, 1), dtype=np.uint8).repeat(3, axis=2)
    want_bits, want_quality = pdqhash.compute(grey)
    digest, quality = pdq256(grey)
    assert digest == int("".join(str(int(bit)) for bit in want_bits), 2).to_bytes(32, "big")
    assert quality == want_quality


def test_pdq_stays_near_the_full_files(photos: dict[str, bytes]) -> None:
    distances, gates = [], []
    for body in list(photos.values())[::3]:
        want_bits, want_quality = pdqhash.compute(pixels(body, 0))
        digest, quality = pdq256(working_image(pixels(body, 512)))
        distances.append(int((np.unpackbits(np.frombuffer(digest, np.uint8)) != want_bits).sum()))
        gates.append((quality >= 50) == (want_quality >= 50))
    assert all(gates)
    assert np.median(distances) <= 6
    assert np.percentile(distances, 95) <= 16


def test_pdq_quality_is_low_for_flat_images_and_high_for_noise() -> None:
    assert pdq256(np.full((256, 300, 3), 200, np.uint8))[1] == 0
    ramp = np.linspace(0, 80, 300, dtype=np.uint8)[None, :, None].repeat(256, axis=0).repeat(3, axis=2)
    assert pdq256(ramp)[1] < 50
    blocks = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((256, 256))
    assert pdq256(np.asarray(blocks))[1] == 100


def test_hashes_of_a_recompressed_copy_are_near_and_of_another_far() -> None:
    rng = np.random.default_rng(3)
    one, other = (Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).resize((400, 300), 3) for _ in range(2))
    buffer = io.BytesIO()
    one.save(buffer, "jpeg", quality=40)
    a, b, c = (working_image(np.asarray(image.convert("RGB"))) for image in (one, Image.open(buffer), other))
    assert bits(phash64(a), phash64(b)) <= 4
    assert bits(phash64(a), phash64(c)) > 16
    packed = np.stack([np.frombuffer(pdq256(array)[0], np.uint8) for array in (a, b, c)])
    near, far = hamming256(packed[0], packed[1:])
    assert near <= 31  # PDQ's own limit for a match
    assert far > 80


def test_distances_count_differing_bits() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 2**64, (5, 1), dtype=np.uint64), rng.integers(0, 2**64, 7, dtype=np.uint64))
    want = [[bits(int(x), int(y)) for y in b] for x in a[:, 0]]
    assert hamming64(a, b).tolist() == want
    assert hamming64(np.uint64([0]), np.uint64([2**64 - 1])).tolist() == [64]
    c, d = rng.integers(0, 256, (4, 1, 32), dtype=np.uint8), rng.integers(0, 256, (6, 32), dtype=np.uint8)
    want = [[bits(int.from_bytes(x.tobytes(), "big"), int.from_bytes(y.tobytes(), "big")) for y in d] for x in c[:, 0]]
    assert hamming256(c, d).tolist() == want
    assert hamming256(np.zeros(32, np.uint8), np.full(32, 255, np.uint8)) == 256
