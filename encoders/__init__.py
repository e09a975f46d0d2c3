"""Images to vectors: one interface, one table of names. No encoder's library is imported before that encoder is loaded.

Axes: H, W = height and width of an image, B = batch, D = width of the vector, N = tokens, C = width of a token.
"""

import importlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from encoders.table import Band, Settings, band_note, band_of, encoder_folder, encoder_list, entry_of
from pagepairs.stores import local_copy

__all__ = ["Band", "Encoder", "band_note", "band_of", "embed_all", "encoder_folder", "encoder_list", "load_encoder"]


class Encoder(Protocol):
    """What every encoder offers. Vectors of two encoders must never be compared.

    Those that run in torch (`encoders.torch_encoder.TorchEncoder`) offer `device` and `features` besides: the same on tensors that
    already lie on that device.
    """

    name: str
    """As its folder under embeddings/ is called."""
    width: int
    """D, the length of a vector."""
    input_size: int
    """Side in pixels of the square images that `embed` takes."""
    batched: bool
    """Whether images of a batch are computed together, so that the batch's size can change the last bits of a vector."""
    digest: dict[str, str]
    """name, weights (sha256), preprocessing (its version), library (with version), engine, dtype and input_size: equal digests give
    comparable vectors."""

    def preprocess(self, rgb_HW3: np.ndarray) -> np.ndarray:
        """Returns the image as `embed` takes it: uint8 (input_size, input_size, 3). Threads may call it at the same time, and it can be
        sent to another process without the network.
        """
        ...

    def embed(self, batch_BHW3: np.ndarray) -> np.ndarray:
        """Returns float32 (B, D), each row of unit L2 norm, from preprocessed images."""
        ...

    def tokens(self, batch_BHW3: np.ndarray) -> np.ndarray:
        """Returns float32 (B, N, C), the features by place that the vector was pooled from; not normalised."""
        ...


def load_encoder(
    spec: str,
    *,
    weights: str = "",
    device: str = "auto",
    threads: int = 0,
    dtype: str = "auto",
    compile: bool = False,  # noqa: A002
    input_size: int = 0,
    engine: str = "torch",
) -> Encoder:
    """Loads an encoder, ready to run.

    Args:
      spec: a name of the table (`encoder_list`), or tflite:PATH; paths here and in `weights` may be gs://.
      weights: folder or file of a checkpoint, as the encoder's library saves it; empty takes the published weights.
      device: auto, cpu or cuda; auto takes a GPU where there is one and the encoder can use it.
      threads: CPU threads of a TFLite or OpenVINO network, 0 = one a core. The threads of torch are the caller's
        (`torch.set_num_threads`).
      dtype: auto, float32 or bfloat16; auto is bfloat16 on a GPU and float32 on a CPU (docs/log.md says why).
      compile: whether torch compiles the network for its first batch's size: a minute, then a little faster.
      input_size: side in pixels, a multiple of the patch; 0 = the encoder's own. Position embeddings are resampled as the encoder's
        library does it.
      engine: torch, or openvino (faster on a CPU, an extra to install).

    Raises:
      ValueError: for an unknown name, weights that are absent or do not fit, a device that is absent, a setting that the encoder has
        not got, a library that is not installed.
    """
    module = importlib.import_module(entry_of(spec).module)
    kind, colon, path = spec.partition(":")
    try:
        weights, spec = local_copy(weights), f"{kind}{colon}{local_copy(path)}"
    except FileNotFoundError as error:
        raise ValueError(f"--encoder {spec}: {error}") from error
    settings = Settings(weights=weights, device=device, threads=threads, dtype=dtype, compile=compile, input_size=input_size, engine=engine)
    encoder: Encoder = module.load(spec, settings)
    return encoder


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
