"""Renders the pictures of the example crawl by seed. Axes: H = height, W = width, C = colour channel."""

import hashlib
import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageEnhance

_SIZES = ((640, 480), (720, 540), (600, 450), (512, 384), (840, 630), (576, 432), (600, 480), (900, 675))


def generator(*key: int) -> np.random.Generator:
    """Returns the random numbers that belong to a key, the same whenever they are asked for."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=np.frombuffer(digest, np.uint64)))


def noise(rng: np.random.Generator, width: int, height: int, cells: int) -> np.ndarray:
    """Returns smooth noise in [-1, 1], shape (height, width), with about `cells` bumps along a side."""
    coarse = Image.fromarray(rng.uniform(-1, 1, (cells + 1, cells + 1)).astype(np.float32))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def scene(seed: int, theme: int, view: int, *, size: tuple[int, int] | None = None, opposite: bool = False) -> Image.Image:
    """Renders a theme (palette, horizon, objects) as one view of it sees it: other viewpoint, light, texture and object places.

    Args:
      seed: of the crawl.
      theme: what the views of a page share.
      view: which of them.
      size: width and height in pixels; the view's own where not given.
      opposite: colours inverted and behind a fence, which no view of the theme resembles.
    """
    width, height = size or _SIZES[(theme * 3 + view) % len(_SIZES)]
    shared, own = generator(seed, theme), generator(seed, theme, view)
    sky_C, ground_C = shared.uniform(0.55, 0.95, 3), shared.uniform(0.05, 0.45, 3)
    horizon = shared.uniform(0.4, 0.6) + own.uniform(-0.04, 0.04)
    zoom, shift_x, shift_y = own.uniform(0.95, 1.05), own.uniform(-0.03, 0.03), own.uniform(-0.03, 0.03)
    y_HW, x_HW = np.mgrid[0:height, 0:width].astype(np.float32)
    x_HW, y_HW = (x_HW / width - 0.5) * zoom + 0.5 + shift_x, (y_HW / height - 0.5) * zoom + 0.5 + shift_y

    hills_W = horizon + 0.05 * np.sin(x_HW[0] * shared.uniform(5, 12) + own.uniform(-1.2, 1.2))
    image_HWC = np.where((y_HW < hills_W)[..., None], sky_C * (1 - 0.25 * y_HW[..., None]), ground_C * (0.6 + 0.5 * y_HW[..., None]))
    for number in range(9):
        sizes, places = (shared, shared) if number % 3 else (own, own)
        jitter = 0.08 if number % 3 else 0.0
        centre_x, centre_y = places.uniform(0.15, 0.85, 2) + own.uniform(-jitter, jitter, 2)
        radius_x, radius_y = sizes.uniform(0.08, 0.17, 2)
        colour_C, power = sizes.uniform(0, 1, 3), float(sizes.choice([1.0, 2.0, 8.0]))  # diamond, ellipse, box
        inside_HW = np.abs((x_HW - centre_x) / radius_x) ** power + np.abs((y_HW - centre_y) / radius_y) ** power < 1
        image_HWC[inside_HW] = colour_C
    texture_HW = 0.07 * noise(own, width, height, 12) + 0.05 * noise(own, width, height, 60)
    light_HW = own.uniform(0.9, 1.1) * (1 + own.uniform(-0.15, 0.15) * (x_HW - 0.5))
    image_HWC = np.clip((image_HWC + texture_HW[..., None]) * light_HW[..., None], 0, 1)
    if opposite:
        fence_HW1 = 0.15 * np.sign(np.sin(2 * np.pi * 9 * x_HW))[..., None]
        image_HWC = np.clip(1 - image_HWC + fence_HW1, 0, 1)
    return Image.fromarray((image_HWC * 255).round().astype(np.uint8))


def closer(image: Image.Image) -> Image.Image:
    """Returns nearly the same picture: its middle, cut a tenth closer, which moves its perceptual hashes further than copies may differ."""
    margin = image.width // 20, image.height // 20
    return image.crop((*margin, image.width - margin[0], image.height - margin[1]))


def copied(image: Image.Image, *, scale: float, brightness: float = 1.0) -> Image.Image:
    """Returns the picture as another site shows it: smaller, and brighter where asked for, which moves some bits of its hashes."""
    size = round(image.width * scale), round(image.height * scale)
    return ImageEnhance.Brightness(image.resize(size, Image.Resampling.LANCZOS)).enhance(brightness)


def quilt(seed: int, number: int, *, size: tuple[int, int]) -> Image.Image:
    """Renders cosines of equal strength and random sign, so that no bit of a perceptual hash is a close call."""
    width, height = size
    rng = generator(seed, 10_000 + number)
    sign_88 = rng.permutation(np.repeat([-1.0, 1.0], 32)).reshape(8, 8)
    along_x_8W = np.cos(np.pi * np.arange(8)[:, None] * (np.arange(width) + 0.5) / width)
    along_y_8H = np.cos(np.pi * np.arange(8)[:, None] * (np.arange(height) + 0.5) / height)
    cloth_HW = along_y_8H.T @ sign_88 @ along_x_8W
    tint_C = rng.uniform(0.7, 1.3, 3)
    image_HWC = 128 + 100 * np.tanh(cloth_HW / 8)[..., None] * tint_C
    return Image.fromarray(np.clip(image_HWC, 0, 255).round().astype(np.uint8))


def encode(image: Image.Image, kind: str = "jpeg", **options: object) -> bytes:
    """Returns the image's file as JPEG, PNG, WebP or GIF."""
    buffer = io.BytesIO()
    settings: dict[str, dict[str, object]] = {"jpeg": {"quality": 88}, "webp": {"quality": 85, "method": 2}}
    image.save(buffer, kind.upper(), **{**settings.get(kind, {}), **options})
    return buffer.getvalue()


def png_bomb(side_px: int) -> bytes:
    """Returns a PNG whose header promises side_px x side_px pixels."""
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", side_px, side_px, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(bytes(10_000))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
