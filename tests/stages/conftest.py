"""Folders of photos, made by number, and the stages run over them."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pagepairs.config import Config, EmbedConfig, RunConfig, ScanConfig


@pytest.fixture(scope="session")
def photo() -> Callable[..., None]:
    """Writes a textured photo; equal seeds and sizes give equal bytes."""

    def write(path: Path, seed: int, *, width: int = 320, height: int = 288, tint: tuple[int, int, int] = (0, 0, 0)) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = np.random.default_rng(seed).integers(0, 256, (9, 10, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        Image.fromarray((np.asarray(image, np.int32) + np.array(tint)).clip(0, 255).astype(np.uint8)).save(path, quality=90)

    return write


@pytest.fixture(scope="session")
def settings_of() -> Callable[..., Config]:
    """Configuration of a run over ROOT/in into ROOT/out, without weights."""

    def make(root: Path, **groups: object) -> Config:
        scan = ScanConfig(input=(str(root / "in"),), min_side_px=64, min_texture=0)
        embed, run = EmbedConfig(encoder="builtin", batch_size=4), RunConfig(output=str(root / "out"), threads=2)
        return Config(**({"scan": scan, "embed": embed, "run": run} | groups))  # type: ignore[arg-type]

    return make


@pytest.fixture
def settings(tmp_path: Path, settings_of: Callable[..., Config]) -> Callable[..., Config]:
    """The same, over tmp_path."""
    return functools.partial(settings_of, tmp_path)
