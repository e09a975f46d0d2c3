"""One training sample: which random numbers it has, how its two images are decoded, augmented and brought to size.

H, W = pixels, S = shape of a condition.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pagepairs.images import ImageError, centre_crop, decode, resize_shortest
from train.condition import Conditioner
from train.keyed import generator

Augment = Literal["none", "flip", "crop-flip"]
_LEAST_CROP = 0.85  # of the shortest side
_MAX_BYTES, _MAX_PIXELS, _TIMEOUT_S = 50_000_000, 100_000_000, 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What a sample brings to a batch."""

    key: str
    target_HW3: np.ndarray
    """uint8."""
    condition_S: np.ndarray
    """float32 of shape S, or the preprocessed image, uint8, where the encoder runs beside the network."""
    eps_3HW: np.ndarray
    """Noise, float32."""
    t: float
    null: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A canonical micro-batch: the same samples, noise and times whatever process makes it. B = batch."""

    number: int
    """Counts micro-batches from the beginning of the run."""
    keys: Sequence[str]
    target_BHW3: Tensor
    condition_BS: Tensor
    eps_B3HW: Tensor
    """float32."""
    t_B: Tensor
    """float64."""
    null_B: Tensor
    """True where the null condition is seen."""


def random_inputs(seed: int, sample: int, image_px: int, condition_dropout: float) -> tuple[np.ndarray, float, bool]:
    """Returns a sample's noise, (3, H, W) float32, its t in [0, 1) and whether it sees the null condition."""
    numbers = generator(seed, "noise", sample)
    t, null = numbers.random(), numbers.random() < condition_dropout
    return numbers.standard_normal((3, image_px, image_px), np.float32), t, bool(null)


def pixels_of(body: bytes) -> np.ndarray:
    """Returns the pixels of an encoded image; raises ImageError where it is damaged."""
    return decode(body, max_bytes=_MAX_BYTES, max_pixels=_MAX_PIXELS, timeout_s=_TIMEOUT_S).rgb


def size_of(body: bytes) -> tuple[int, int] | None:
    """Returns width and height as the header states them, None where it is damaged."""
    try:
        with Image.open(io.BytesIO(body)) as image:
            return image.size
    except (OSError, ValueError, SyntaxError):
        return None


def fit(rgb_HW3: np.ndarray, image_px: int) -> np.ndarray:
    """Returns the middle square of the image at the network's size."""
    return centre_crop(resize_shortest(rgb_HW3, image_px, upscale=True), image_px)


def augmented(rgb_HW3: np.ndarray, augment: Augment, numbers: np.random.Generator) -> np.ndarray:
    """Returns the image, mirrored or not, and for crop-flip a square of 0.85 to 1 of its shortest side, anywhere in it."""
    if augment == "crop-flip":
        height, width = rgb_HW3.shape[:2]
        side = round(min(height, width) * numbers.uniform(_LEAST_CROP, 1))
        top, left = int(numbers.integers(height - side + 1)), int(numbers.integers(width - side + 1))
        rgb_HW3 = rgb_HW3[top : top + side, left : left + side]
    if augment != "none" and numbers.random() < 0.5:
        rgb_HW3 = rgb_HW3[:, ::-1]
    return np.ascontiguousarray(rgb_HW3)


def two_images(
    condition: bytes, target: bytes, *, image_px: int, same: bool, augment: Augment, numbers: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the condition as it is given to the encoder's preprocessing, and the target at the network's size.

    Where the condition is the target, both are the same augmented image.

    Raises:
      ImageError: if one is damaged, or the target is smaller than the network's images.
    """
    whole = pixels_of(target)
    if min(whole.shape[:2]) < image_px:
        raise ImageError("too_small", f"{whole.shape[1]} x {whole.shape[0]} pixels, the network's images have {image_px}")
    target_HW3 = augmented(whole, augment, numbers)
    condition_HW3 = target_HW3 if same else augmented(pixels_of(condition), augment, numbers)
    return condition_HW3, fit(target_HW3, image_px)


def condition_of(rgb_HW3: np.ndarray, conditioner: Conditioner) -> np.ndarray:
    """Returns what a sample carries of its condition."""
    ready = conditioner.encoder.preprocess(rgb_HW3)
    return conditioner.of_image(ready) if conditioner.in_threads else ready


def collate(samples: Sequence[Sample], number: int) -> Batch:
    """Returns the samples as a micro-batch."""
    return Batch(
        number=number,
        keys=[sample.key for sample in samples],
        target_BHW3=torch.from_numpy(np.stack([sample.target_HW3 for sample in samples])),
        condition_BS=torch.from_numpy(np.stack([sample.condition_S for sample in samples])),
        eps_B3HW=torch.from_numpy(np.stack([sample.eps_3HW for sample in samples])),
        t_B=torch.tensor([sample.t for sample in samples], dtype=torch.float64),
        null_B=torch.tensor([sample.null for sample in samples]),
    )
