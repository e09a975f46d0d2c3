"""Photos for the tests of encoders."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

sys.path.insert(0, str(Path(__file__).parent))  # small_networks: a module beside the tests


def _read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


@pytest.fixture(scope="session")
def read_photo() -> Callable[[Path], np.ndarray]:
    """A function that returns a photo upright, uint8 (H, W, 3), read-only as a decoder may hand it out."""
    return _read


@pytest.fixture(scope="session")
def recipe_photos(shared_data: Path) -> list[tuple[str, Path]]:
    """Page and file of 154 photos of 40 recipe pages."""
    folder = shared_data / "crawl_howtocook"
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    return [(row["page_url"], folder / row["path"]) for row in rows]


@pytest.fixture(scope="session")
def photos(recipe_photos: list[tuple[str, Path]]) -> list[np.ndarray]:
    """Eight photos of several shapes."""
    return [_read(path) for _, path in recipe_photos[::20]]


@pytest.fixture(scope="session")
def pictures() -> list[np.ndarray]:
    """Twelve smooth random images of several shapes, which every machine has."""
    rng = np.random.Generator(np.random.Philox(key=7))
    coarse = [Image.fromarray(rng.integers(0, 256, (5 + number, 6, 3), np.uint8)) for number in range(12)]
    return [np.asarray(image.resize((300 + 17 * number, 260), Image.Resampling.BICUBIC)) for number, image in enumerate(coarse)]
