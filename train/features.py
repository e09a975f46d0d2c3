"""Images to feature arrays, once for all metrics. The letters FID belong to the published Inception weights; all else is FD(encoder).

Axes: H, W = pixels, B = batch, N = images, D = width of a feature vector.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np

from encoders import load_encoder

BATCH = 32
"""Images of a forward pass; the last batch is filled up, so that a vector does not depend on how many images there are."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FeatureSpace:
    """A network whose vectors are compared."""

    label: str
    """Of its Fréchet distance: FID, or FD(name)."""
    digest: Mapping[str, str]
    """name, weights (sha256), preprocessing and library: only scores of equal digests can be compared."""
    width: int
    preprocess: Callable[[np.ndarray], np.ndarray]
    """From uint8 (H, W, 3) to what `embed` takes; threads call it at the same time."""
    embed: Callable[[np.ndarray], np.ndarray]
    """From a batch to float32 (B, D)."""


def encoder_space(spec: str, *, weights: str, device: str) -> FeatureSpace:
    """Returns an encoder as a feature space; its vectors have unit length, so its distances lie between 0 and 4.

    Raises:
      ValueError: as `encoders.load_encoder` does.
    """
    encoder = load_encoder(spec, weights=weights, device=device)
    return FeatureSpace(
        label=f"FD({encoder.name})", digest=encoder.digest, width=encoder.width, preprocess=encoder.preprocess, embed=encoder.embed
    )


def extract(spaces: Sequence[FeatureSpace], images: Iterable[np.ndarray], *, batch_size: int = BATCH) -> list[np.ndarray]:
    """Returns the features of the images in each space, float32 (N, D), in their order; the images are read once.

    Args:
      spaces: one or more.
      images: uint8 (H, W, 3), for Inception of one shape; a batch of them is held at a time.
      batch_size: images of a forward pass.
    """
    images = iter(images)
    parts: list[list[np.ndarray]] = [[np.empty((0, space.width), np.float32)] for space in spaces]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while batch := list(islice(images, batch_size)):
            for space, found in zip(spaces, parts, strict=True):
                prepared = list(pool.map(space.preprocess, batch))
                prepared += prepared[-1:] * (batch_size - len(prepared))
                found.append(space.embed(np.stack(prepared))[: len(batch)])
    return [np.concatenate(found) for found in parts]
