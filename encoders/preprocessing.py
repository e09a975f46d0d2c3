"""What each model's own preprocessing is, in one table, and the one function that does it.

Axes: H, W = height and width of an image. Resizing is `encoders.resize`; mean and deviation are applied where the network runs.

Two libraries that "resize to 256 and crop 224 from the middle" differ by a pixel where the leftover is odd: transformers rounds the
offset down, torchvision (and so open_clip and the original CLIP) rounds half to even. Each model is cropped as its own library does.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from encoders.resize import resize


@dataclass(frozen=True, slots=True, kw_only=True)
class Channels:
    """Statistics that pixels are normalised with, red, green and blue on a scale of 0 to 1."""

    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """From a decoded image to the pixels a network takes."""

    fit: Literal["shortest", "squash"]
    """shortest: the shortest side is resized and the middle cropped. squash: both sides are resized, whatever the shape."""
    margin: tuple[int, int] = (1, 1)
    """The shortest side as a fraction of the crop: (256, 224) resizes to 256 for a crop of 224, and alike for other sizes."""
    interpolation: Literal["bicubic", "bilinear"]
    """Always antialiased."""
    offset: Literal["down", "even"] = "down"
    """How half a pixel is rounded where the crop's leftover is odd."""
    channels: Channels
    version: str
    """Goes up whenever a pixel changes; part of an encoder's digest."""
    source: str
    """Where all this stands."""


_IMAGENET = Channels(mean=(0.485, 0.456, 0.406), deviation=(0.229, 0.224, 0.225))
_HALVES = Channels(mean=(0.5, 0.5, 0.5), deviation=(0.5, 0.5, 0.5))
_OPENAI = Channels(mean=(0.48145466, 0.4578275, 0.40821073), deviation=(0.26862954, 0.26130258, 0.27577711))

RECIPES = {
    "dinov2": Recipe(
        fit="shortest",
        margin=(256, 224),
        interpolation="bicubic",
        version="shortest-256-crop-224-v1",
        source="preprocessor_config.json of facebook/dinov2-*: BitImageProcessor of transformers",
        channels=_IMAGENET,
    ),
    "dinov3": Recipe(
        fit="squash",
        interpolation="bilinear",
        version="squash-bilinear-v1",
        source="make_transform in the README of facebookresearch/dinov3, at 224; transformers' processor resizes before rounding to 8 bits",
        channels=_IMAGENET,
    ),
    "siglip": Recipe(
        fit="squash",
        interpolation="bicubic",
        version="squash-bicubic-halves-v1",
        source="tag webli of open_clip (pretrained.py); a SigLIP that open_clip builds without its tag takes CLIP's",
        channels=_HALVES,
    ),
    "clip": Recipe(
        fit="shortest",
        interpolation="bicubic",
        offset="even",
        version="shortest-crop-bicubic-v1",
        source="tag openai of open_clip (pretrained.py), as in the original code",
        channels=_OPENAI,
    ),
    "sscd": Recipe(
        fit="squash",
        interpolation="bilinear",
        version="squash-bilinear-v1",
        source="the README of facebookresearch/sscd-copy-detection: skew_320, torchvision's Resize on PIL images",
        channels=_IMAGENET,
    ),
    "mae": Recipe(
        fit="squash",
        interpolation="bilinear",
        version="squash-bilinear-v1",
        source="preprocessor_config.json of facebook/vit-mae-*: ViTImageProcessor of transformers with ImageNet's mean and deviation",
        channels=_IMAGENET,
    ),
}


def prepare(rgb_HW3: np.ndarray, recipe: Recipe, size_px: int) -> np.ndarray:
    """Returns uint8 (size_px, size_px, 3), contiguous."""
    if recipe.fit == "squash":
        return resize(rgb_HW3, height=size_px, width=size_px, interpolation=recipe.interpolation)
    shortest_px = size_px * recipe.margin[0] // recipe.margin[1]
    height, width = rgb_HW3.shape[:2]
    shortest = min(height, width)
    height, width = height * shortest_px // shortest, width * shortest_px // shortest
    top, left = _offset(height - size_px, recipe), _offset(width - size_px, recipe)
    resized_HW3 = resize(rgb_HW3, height=height, width=width, interpolation=recipe.interpolation)
    return resized_HW3[top : top + size_px, left : left + size_px].copy()


def _offset(leftover_px: int, recipe: Recipe) -> int:
    """Returns half of what the crop leaves over."""
    return leftover_px // 2 if recipe.offset == "down" else round(leftover_px / 2)
