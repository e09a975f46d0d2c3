"""Images to vectors: one interface, one table of names. No encoder's library is imported before that encoder is loaded.

Axes: H, W = height and width of an image, B = batch, D = width of the vector, N = tokens, C = width of a token.
"""

import difflib
import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

_TFLITE = "tflite:PATH"


class Encoder(Protocol):
    """What every encoder offers. Vectors of two encoders must never be compared."""

    name: str
    """As its folder under embeddings/ is called."""
    width: int
    """D, the length of a vector."""
    input_size: int
    """Side in pixels of the square images that `embed` takes."""
    digest: dict[str, str]
    """name, weights (sha256), preprocessing (its version) and library: equal digests give comparable vectors."""

    def preprocess(self, rgb_HW3: np.ndarray) -> np.ndarray:
        """Returns the image as `embed` takes it: uint8 (input_size, input_size, 3). Threads may call it at the same time."""
        ...

    def embed(self, batch_BHW3: np.ndarray) -> np.ndarray:
        """Returns float32 (B, D), each row of unit L2 norm, from preprocessed images."""
        ...

    def tokens(self, batch_BHW3: np.ndarray) -> np.ndarray:
        """Returns float32 (B, N, C), the features by place that the vector was pooled from; not normalised."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """The cosine similarities of pairs that are related but not near-duplicates."""

    low: float
    high: float
    source: str
    """Where the two numbers come from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    module: str
    band: Band | None


_PAPER = Band(low=0.3, high=0.9, source="paper: arXiv 2405.14857, DINOv2 CLS tokens")

_ENCODERS = {
    "builtin": _Entry(module="encoders.builtin", band=Band(low=0.3, high=0.9, source="measured on 154 photos of 40 recipe pages")),
    "dinov2-small": _Entry(module="encoders.dinov2", band=_PAPER),
    "dinov2-base": _Entry(module="encoders.dinov2", band=_PAPER),
    "dinov2-large": _Entry(module="encoders.dinov2", band=_PAPER),
    _TFLITE: _Entry(module="encoders.tflite", band=None),
}


def _entry(spec: str) -> _Entry:
    name = _TFLITE if spec.startswith("tflite:") and len(spec) > len("tflite:") else spec
    if name not in _ENCODERS or spec == _TFLITE:
        near = difflib.get_close_matches(spec, _ENCODERS, n=1, cutoff=0.0)[0]
        raise ValueError(f"--encoder {spec}: no such encoder, the nearest is {near}; there are {', '.join(_ENCODERS)}")
    return _ENCODERS[name]


def load_encoder(spec: str, *, weights: str = "", device: str = "auto", threads: int = 0) -> Encoder:
    """Loads an encoder, ready to run.

    Args:
      spec: builtin, dinov2-small, dinov2-base, dinov2-large or tflite:PATH.
      weights: folder of a local checkpoint, for encoders that have one; empty takes the published weights.
      device: auto, cpu or cuda; auto takes a GPU where there is one and the encoder can use it.
      threads: CPU threads of a TFLite network, 0 = one a core. The threads of torch are the caller's (`torch.set_num_threads`).

    Raises:
      ValueError: for an unknown name, weights that are absent or do not fit, a device that is absent, a library that is not installed.
    """
    entry = _entry(spec)
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"--device {device}: give auto, cpu or cuda")
    encoder: Encoder = importlib.import_module(entry.module).load(spec, weights=weights, device=device, threads=threads)
    return encoder


def encoder_folder(spec: str) -> str:
    """Returns the name of the encoder's folder under embeddings/."""
    _entry(spec)
    return "tflite-" + os.path.splitext(os.path.basename(spec))[0] if spec.startswith("tflite:") else spec


def band_of(spec: str) -> Band | None:
    """Returns the similarity band of the encoder, or None where nobody has measured one."""
    return _entry(spec).band


def embed_all(encoder: Encoder, images: Sequence[np.ndarray], *, batch_size: int) -> np.ndarray:
    """Returns the vectors of preprocessed images, float32 (len(images), D), in their order.

    Every forward pass sees `batch_size` images; the last batch is filled up with its last image. So the arithmetic of an image
    depends on its row in the batch alone, never on how many images there are.
    """
    vector_ND = np.empty((len(images), encoder.width), np.float32)
    for start in range(0, len(images), batch_size):
        batch = list(images[start : start + batch_size])
        filled = batch + batch[-1:] * (batch_size - len(batch))
        vector_ND[start : start + len(batch)] = encoder.embed(np.stack(filled))[: len(batch)]
    return vector_ND
