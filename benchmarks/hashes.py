"""Hashing speed against imagededup and pdqhash on one core, and how many changed copies of real photos are found, by kind of change.

    python benchmarks/hashes.py --recall FOLDER [FOLDER ...]

`equal`, `near` and `found` are shares of the photos: with an equal pHash (and PDQ within 48 bits), within 6 and 48 bits, and of these
with a band in common, which is what a crawl of any size finds. Photos are those whose shortest side and texture pass scan's defaults.
"""

import argparse
import hashlib
import io
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pdqhash
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

from dedup.hashes import hamming64, hamming256, pdq256, phash64
from dedup.near import BANDS, NEAR_BITS, NEAR_PDQ_BITS, band_values
from pagepairs.images import decode, working_image

LARGEST_PX = 1200


def encoded(image: Image.Image, kind: str, quality: int) -> Image.Image:
    """Returns the image after a round through a lossy format."""
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=quality)
    return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")


def scaled(image: Image.Image, side: int) -> Image.Image:
    """Returns the image with its shortest side of so many pixels."""
    short = min(image.size)
    return image.resize((max(1, image.width * side // short), max(1, image.height * side // short)), Image.Resampling.LANCZOS)


def cropped(image: Image.Image, share: float) -> Image.Image:
    """Returns the middle of the image."""
    x, y = round(image.width * (1 - share) / 2), round(image.height * (1 - share) / 2)
    return image.crop((x, y, image.width - x, image.height - y))


def captioned(image: Image.Image) -> Image.Image:
    """Returns the image with a line of text below."""
    image = image.copy()
    style = {"fill": "white", "stroke_width": 2, "stroke_fill": "black", "font_size": max(12, image.height // 16)}
    ImageDraw.Draw(image).text((image.width * 0.05, image.height * 0.88), "sample caption, example.org 2026", **style)
    return image


def stamped(image: Image.Image) -> Image.Image:
    """Returns the image with an opaque square of 6 % of its area in a corner."""
    image, side = image.copy(), round((0.06 * image.width * image.height) ** 0.5)
    image.paste((230, 30, 30), (image.width - side, image.height - side, image.width, image.height))
    return image


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG 30": lambda image: encoded(image, "jpeg", 30),
    "WebP 50": lambda image: encoded(image, "webp", 50),
    "half size": lambda image: scaled(image, min(image.size) // 2),
    "128 px, JPEG 60": lambda image: encoded(scaled(image, 128), "jpeg", 60),
    "squashed to 224": lambda image: image.resize((224, 224), Image.Resampling.BICUBIC),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "blur 2 px": lambda image: image.filter(ImageFilter.GaussianBlur(2)),
    "brightness 1.3": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
    "gamma 0.6": lambda image: image.point(lambda value: round(255 * (value / 255) ** 0.6)),
    "text line": captioned,
    "stamp of 6 %": stamped,
    "crop 95 %": lambda image: cropped(image, 0.95),
    "crop 90 %": lambda image: cropped(image, 0.9),
    "crop 80 %": lambda image: cropped(image, 0.8),
    "white pad 5 %": lambda image: ImageOps.expand(image, (image.width // 20, image.height // 20), "white"),
    "rotate 2 degrees": lambda image: image.rotate(2, Image.Resampling.BICUBIC),
    "mirrored": ImageOps.mirror,
}


def photos(folders: list[str]) -> list[Image.Image]:
    """Returns each distinct photo below the folders once, in the order of their paths."""
    paths = [path for folder in folders for path in sorted(Path(folder).rglob("*")) if path.suffix.lower() in (".jpg", ".jpeg", ".png")]
    bodies = {hashlib.sha256(body).digest(): body for body in (path.read_bytes() for path in paths)}
    images = []
    for body in bodies.values():
        image = Image.fromarray(decode(body, max_bytes=10**8, max_pixels=10**8, timeout_s=60.0).rgb)
        image.thumbnail((LARGEST_PX, LARGEST_PX))
        if min(image.size) >= 200 and hashes(image)[2] >= 50:
            images.append(image)
    return images


def hashes(image: Image.Image) -> tuple[int, bytes, int]:
    """Returns pHash, PDQ and texture as scan finds them."""
    working = working_image(np.ascontiguousarray(np.asarray(image)))
    return phash64(working), *pdq256(working)


def packed(found: list[tuple[int, bytes, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the hashes as uint64 of shape (N,) and uint8 of shape (N, 32)."""
    return np.array([row[0] for row in found], np.uint64), np.frombuffer(b"".join(row[1] for row in found), np.uint8).reshape(-1, 32)


def measure_recall(folders: list[str]) -> None:
    """Prints a table of changes, and how near the photos are to each other."""
    originals = photos(folders)
    phash, pdq = packed([hashes(image) for image in originals])
    print(f"{len(originals)} photos\n| change | equal | near | found |\n|---|---|---|---|")
    for name, change in CHANGES.items():
        other, other_pdq = packed([hashes(change(image)) for image in originals])
        bits, agree = hamming64(phash, other), hamming256(pdq, other_pdq) <= NEAR_PDQ_BITS
        shared = np.any([band_values(phash ^ other, band) == 0 for band in range(BANDS)], axis=0)
        near = agree & (bits <= NEAR_BITS)
        print(f"| {name} | {np.mean(agree & (bits == 0)):.1%} | {np.mean(near):.1%} | {np.mean(near & shared):.1%} |")
    one, two = np.triu_indices(len(originals), 1)
    bits, pdq_bits = hamming64(phash[one], phash[two]), hamming256(pdq[one], pdq[two])
    near = int(((bits <= NEAR_BITS) & (pdq_bits <= NEAR_PDQ_BITS)).sum())
    wider = f"{(bits <= 10).sum()} within 10 bits of pHash, {(pdq_bits <= 70).sum()} within 70 of PDQ"
    print(f"{len(one):,} pairs of photos: {near} near, {wider}")


def measure_speed(images: int, repeats: int) -> None:
    """Prints images a second of processor time for each way to hash a working image."""
    from imagededup.methods import PHash

    rng = np.random.default_rng(0)
    small = [Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)) for _ in range(images)]
    arrays = [np.asarray(image.resize((341, 256), Image.Resampling.BICUBIC)) for image in small]
    peer = PHash(verbose=False)
    ways = {
        "phash64": phash64,
        "imagededup PHash": lambda array: peer.encode_image(image_array=array),
        "pdq256": pdq256,
        "pdqhash": pdqhash.compute,
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats + 1):
        for name, way in ways.items():
            started = time.process_time()
            for array in arrays:
                way(array)
            rates[name].append(images / (time.process_time() - started))
    for name, values in rates.items():
        print(f"{name:17} {np.median(values[1:]):7.0f} images/s of a core ({min(values[1:]):.0f}-{max(values[1:]):.0f})")
    for ours, theirs in (("phash64", "imagededup PHash"), ("pdq256", "pdqhash")):
        print(f"{ours} / {theirs}: {np.median(np.divide(rates[ours], rates[theirs])[1:]):.2f}")


def main() -> None:
    """Prints the speeds, and the table of changes where folders are given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--recall", nargs="+", default=[], help="folders of photos")
    args = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    measure_speed(args.images, args.repeats)
    if args.recall:
        measure_recall(args.recall)


if __name__ == "__main__":
    main()
