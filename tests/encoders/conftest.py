"""Photos for the tests of encoders."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps


def read_rgb(path: Path) -> np.ndarray:
    """Returns a photo upright, uint8 (H, W, 3)."""
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def as_jpeg(rgb_HW3: np.ndarray, quality: int) -> np.ndarray:
    """Returns the image after a lossy encoding."""
    buffer = io.BytesIO()
    Image.fromarray(rgb_HW3).save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as image:
        return np.asarray(image)


@pytest.fixture(scope="session")
def recipe_pages(shared_data: Path) -> list[tuple[str, Path]]:
    """Page and file of 154 photos of 40 recipe pages."""
    folder = shared_data / "crawl_howtocook"
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    return [(row["page_url"], folder / row["path"]) for row in rows]


@pytest.fixture(scope="session")
def photos(recipe_pages: list[tuple[str, Path]]) -> list[np.ndarray]:
    """Eight photos of several shapes, read-only as a decoder may hand them out."""
    return [read_rgb(path) for _, path in recipe_pages[::20]]


@pytest.fixture(scope="session")
def pictures() -> list[np.ndarray]:
    """Twelve random images of several shapes that every machine has."""
    return list(_pictures())


def _pictures() -> Iterator[np.ndarray]:
    rng = np.random.Generator(np.random.Philox(key=7))
    for number in range(12):
        coarse = Image.fromarray(rng.integers(0, 256, (5 + number, 6, 3), np.uint8))
        yield np.asarray(coarse.resize((300 + 17 * number, 260), Image.Resampling.BICUBIC))
