"""What happens to pictures on their way through the web, by seed: the changes that benchmark removal is measured against.

MILD changes leave the whole picture recognisable at a glance, and a descriptor's cut is set so that it finds 99 of 100 of them. HARD ones
cut, frame, mirror or turn it; they are measured and shown.
"""

import hashlib
import io
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFont

Change = Callable[[Image.Image, np.random.Generator], Image.Image]


def change(rgb: np.ndarray, kind: str, *, key: str, seed: int = 0) -> np.ndarray:
    """Returns a changed copy of an image, uint8 (height, width, 3).

    Args:
      rgb: uint8 (height, width, 3).
      kind: a name in CHANGES.
      key: of the image; it decides, with kind and seed, how strong the change is and where it falls.
      seed: another one gives other strengths.
    """
    digest = hashlib.blake2b(f"{seed}/{kind}/{key}".encode(), digest_size=8).digest()
    rng = np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "big")))
    return np.array(CHANGES[kind](Image.fromarray(rgb), rng).convert("RGB"))


def _recompressed(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG" if rng.random() < 0.5 else "WEBP", quality=int(rng.integers(30, 76)))
    return Image.open(buffer)


def _resized(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """To a shortest side of 128 to 512 pixels, and one in four as much as a tenth out of proportion."""
    scale = float(rng.uniform(128, 512)) / min(image.size)
    stretch = float(rng.uniform(0.9, 1.1)) if rng.random() < 0.25 else 1.0
    return image.resize((max(1, round(image.width * scale * stretch)), max(1, round(image.height * scale))), Image.Resampling.BICUBIC)


def _greyed(image: Image.Image, _rng: np.random.Generator) -> Image.Image:
    return image.convert("L")


def _recoloured(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhance(image).enhance(float(rng.uniform(0.75, 1.3)))
    return image


def _captioned(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """With a line of white letters on black along the upper or lower edge, 6 to 10 % high."""
    image = image.copy()
    height = max(8, round(image.height * float(rng.uniform(0.06, 0.10))))
    top = 0 if rng.random() < 0.5 else image.height - height
    text = "".join(chr(97 + int(letter)) if letter < 26 else " " for letter in rng.integers(0, 32, 120))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, top, image.width, top + height), fill=(0, 0, 0))
    draw.text((height // 4, top), text, fill=(255, 255, 255), font=ImageFont.load_default(size=max(6, int(height * 0.7))))
    return image


def _cropped(share: float) -> Change:
    """A rectangle of `share` of both sides, anywhere in the image."""

    def crop(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        width, height = max(1, round(image.width * share)), max(1, round(image.height * share))
        left, top = int(rng.integers(0, image.width - width + 1)), int(rng.integers(0, image.height - height + 1))
        return image.crop((left, top, left + width, top + height))

    return crop


def _padded(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Bars of one colour, 5 to 20 % of the longest side, on two sides or on all four."""
    bar = max(1, round(max(image.size) * float(rng.uniform(0.05, 0.20))))
    right, down = ((bar, bar), (bar, 0), (0, bar))[int(rng.integers(0, 3))]
    colour = (0, 0, 0) if rng.random() < 0.5 else (255, 255, 255)
    framed = Image.new("RGB", (image.width + 2 * right, image.height + 2 * down), colour)
    framed.paste(image, (right, down))
    return framed


def _flipped(image: Image.Image, _rng: np.random.Generator) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def _rotated(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """By 2 to 10 degrees either way, corners black; one in four by a quarter turn."""
    if rng.random() < 0.25:
        return image.transpose(Image.Transpose.ROTATE_90)
    return image.rotate(float(rng.uniform(2, 10)) * (1 if rng.random() < 0.5 else -1), Image.Resampling.BICUBIC)


MILD: Mapping[str, Change] = {
    "recompressed": _recompressed,
    "resized": _resized,
    "greyed": _greyed,
    "recoloured": _recoloured,
    "captioned": _captioned,
    "cropped to 95 %": _cropped(0.95),
}
HARD: Mapping[str, Change] = {
    "cropped to 80 %": _cropped(0.80),
    "cropped to 60 %": _cropped(0.60),
    "padded": _padded,
    "flipped": _flipped,
    "rotated": _rotated,
}
CHANGES: Mapping[str, Change] = {**MILD, **HARD}
