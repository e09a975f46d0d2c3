"""What the network is conditioned on: an encoder's tokens (cross_attention) or its global vector (film), computed on the fly and frozen.

S = shape of a condition: (N, C) of tokens or (D,) of the vector.
"""

import hashlib
import threading
from collections import OrderedDict

import numpy as np
import torch
from torch import Tensor

from encoders import Encoder, load_encoder
from train.network import Conditioning

_CACHE_BYTES = 256 * 1024 * 1024
# Of published encoders, so that --dry-run needs no weights: places of the grid, plus the CLS token where there is one; width.
_SHAPES = {
    "builtin": ((64, 12), 338),
    "dinov2-small": ((257, 384), 384),
    "dinov2-base": ((257, 768), 768),
    "dinov2-large": ((257, 1024), 1024),
}


# The network normalises a token as a whole: colours in grey levels would leave nothing of edges between 0 and 1: samples followed the
# colour of their condition and its shape not at all, and both with these units (docs/log.md).
_UNITS = {"builtin": np.array([100.0] * 3 + [1.0] * 9, np.float32)}


class Conditioner:
    """An encoder as the trainer and the sampler use it."""

    def __init__(self, encoder: Encoder, conditioning: Conditioning) -> None:
        self.encoder, self.conditioning = encoder, conditioning
        # Networks of torch run on a batch where the trainer runs; all others image by image in the reader's threads, and are remembered:
        # they run on the CPU, and where they are used sets are small.
        self.in_threads = not hasattr(encoder, "features")
        self._cache: OrderedDict[bytes, np.ndarray] = OrderedDict()
        self._bytes, self._lock = 0, threading.Lock()

    def of_image(self, image_HW3: np.ndarray) -> np.ndarray:
        """Returns the condition of one preprocessed image, float32 of shape S; threads may call it at the same time."""
        key = hashlib.blake2b(image_HW3.tobytes(), digest_size=16).digest()
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        one = image_HW3[None]
        if self.conditioning == "cross_attention":
            found: np.ndarray = self.encoder.tokens(one)[0].astype(np.float32) / _UNITS.get(self.encoder.name, np.float32(1))
        else:
            found = self.encoder.embed(one)[0].astype(np.float32)
        with self._lock:
            if key not in self._cache:
                self._cache[key] = found
                self._bytes += found.nbytes
            while self._bytes > _CACHE_BYTES:
                self._bytes -= self._cache.popitem(last=False)[1].nbytes
        return found

    @torch.no_grad()
    def of_batch(self, image_BHW3: Tensor) -> Tensor:
        """Returns the conditions of preprocessed images, uint8 on the network's device: float32 (B, *S) there."""
        if self.in_threads:
            images = image_BHW3.cpu().numpy()
            return torch.from_numpy(np.stack([self.of_image(image) for image in images])).to(image_BHW3.device)
        vector_BD, tokens_BNC = self.encoder.features(image_BHW3)  # type: ignore[attr-defined]  # encoders of torch have it
        condition: Tensor = tokens_BNC if self.conditioning == "cross_attention" else vector_BD
        return condition.float()

    def shape(self) -> tuple[int, ...]:
        """Returns S, measured on a grey image."""
        side = self.encoder.input_size
        return tuple(self.of_batch(torch.full((1, side, side, 3), 128, dtype=torch.uint8)).shape[1:])


def load_conditioner(spec: str, *, weights: str, device: str, conditioning: Conditioning) -> Conditioner:
    """Returns the conditioner of an encoder named as `encoders.load_encoder` takes it; `device` is cpu or cuda.

    Raises:
      ValueError: as load_encoder does.
    """
    # What only runs on a CPU does so beside a network on a GPU too.
    return Conditioner(load_encoder(spec, weights=weights, device="cpu" if device == "cpu" else "auto", threads=1), conditioning)


def known_shape(spec: str, conditioning: Conditioning) -> tuple[int, ...] | None:
    """Returns S of an encoder without loading it, where its published shape is known."""
    if spec not in _SHAPES:
        return None
    tokens, width = _SHAPES[spec]
    return tokens if conditioning == "cross_attention" else (width,)
