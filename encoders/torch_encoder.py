"""Encoders that run in torch: from uint8 pixels to unit vectors and tokens, the same for every family.

Axes: H, W = height and width of an image, B = batch, D = width of the vector, N = tokens, C = width of a token.

How far a vector may move, as the largest difference of a component: 0 for other images in the other rows of the batch or another order
of batches; 1e-5 for another batch size (the shape of a matrix product decides the order of its sums). bfloat16 against float32: cosine
at least 0.999. These hold for a small random network of each family in the tests.
"""

import contextlib
import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from encoders.preprocessing import Recipe, prepare
from encoders.table import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A network with its weights, on the CPU, as a family builds it."""

    body: torch.nn.Module
    """From float pixels (B, 3, H, W), normalised, to the vector (B, D), of any length, and the tokens (B, N, C)."""
    width: int
    """D."""
    weights_sha256: str
    library: str
    """Its name and version."""
    recipe: Recipe
    bfloat16: Literal["autocast", "weights"] = "autocast"
    """How it runs in bfloat16. Autocast keeps the residual stream in float32. open_clip's own transformer has its weights cast instead:
    under autocast on a CPU its attention copies everything and is three times slower than in float32."""


class Network(torch.nn.Module):
    """All that is arithmetic: pixels to float, mean and deviation, the body, unit norm. One module, so that compilers see the whole."""

    mean_C11: torch.Tensor
    deviation_C11: torch.Tensor

    def __init__(self, body: torch.nn.Module, recipe: Recipe, *, body_dtype: torch.dtype) -> None:
        super().__init__()
        self.body = body.to(body_dtype)
        self.body_dtype = body_dtype
        self.register_buffer("mean_C11", torch.tensor(recipe.channels.mean)[:, None, None])
        self.register_buffer("deviation_C11", torch.tensor(recipe.channels.deviation)[:, None, None])

    def forward(self, batch_BHW3: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns unit vectors (B, D) and tokens (B, N, C), both float32."""
        pixels_BCHW = batch_BHW3.permute(0, 3, 1, 2).float() / 255
        pixels_BCHW = (pixels_BCHW - self.mean_C11) / self.deviation_C11
        pooled_BD, tokens_BNC = self.body(pixels_BCHW.to(self.body_dtype))
        return torch.nn.functional.normalize(pooled_BD.float(), dim=-1), tokens_BNC.float()


class TorchEncoder:
    """An encoder in torch; the interface is `encoders.Encoder`."""

    batched = True

    def __init__(self, name: str, built: Built, *, input_size: int, device: torch.device, dtype: str, compiled: bool) -> None:
        """Moves the network to its device; `load` checks the settings."""
        self.name, self.width, self.input_size, self.device = name, built.width, input_size, device
        self.digest = {
            "name": name,
            "weights": built.weights_sha256,
            "preprocessing": built.recipe.version,
            "library": f"{built.library}, torch {torch.__version__.split('+')[0]}",
            "engine": "torch, compiled" if compiled else "torch",
            "dtype": dtype,
            "input_size": str(input_size),
        }
        self.preprocess = functools.partial(prepare, recipe=built.recipe, size_px=input_size)
        self._autocast = dtype == "bfloat16" and built.bfloat16 == "autocast"
        body_dtype = torch.bfloat16 if dtype == "bfloat16" and not self._autocast else torch.float32
        self.network = Network(built.body, built.recipe, body_dtype=body_dtype).requires_grad_(False).eval().to(device)
        self._run: Any = _compiled(self.network, device) if compiled else self.network

    # In here and not in the caller: another thread or process that shares the encoder has no such context of its own. Not
    # inference_mode: a trainer's network must be able to keep the tokens for its own gradient.
    @torch.no_grad()
    def features(self, batch_BHW3: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns unit vectors (B, D) and tokens (B, N, C), float32 on `device`, without gradient.

        Args:
          batch_BHW3: uint8 on `device`, preprocessed.
        """
        exact = self.digest["dtype"] == "float32" and self.device.type == "cuda"
        # cuDNN would round the patches' convolution to 10 bits (TF32).
        full = torch.backends.cudnn.flags(enabled=True, allow_tf32=False) if exact else contextlib.nullcontext()
        with full, torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self._autocast):
            found: tuple[torch.Tensor, torch.Tensor] = self._run(batch_BHW3)
        return found

    def embed(self, batch_BHW3: np.ndarray) -> np.ndarray:
        """Returns float32 (B, D) of unit norm."""
        vectors: np.ndarray = self.features(torch.from_numpy(batch_BHW3).to(self.device))[0].cpu().numpy()
        return vectors

    def tokens(self, batch_BHW3: np.ndarray) -> np.ndarray:
        """Returns float32 (B, N, C); the family's module says what they are."""
        tokens: np.ndarray = self.features(torch.from_numpy(batch_BHW3).to(self.device))[1].cpu().numpy()
        return tokens


def load(spec: str, settings: Settings, build: Callable[[int], Built], *, input_size: int, patch: int) -> Any:
    """Builds an encoder for the settings: a TorchEncoder, or one that OpenVINO made of it.

    Args:
      spec: its name.
      settings: as given; checked here, before any weights are read.
      build: from the input size to the network.
      input_size: the encoder's own.
      patch: side of a patch in pixels.

    Raises:
      ValueError: for a device that is absent, or an input size that is no multiple of the patch.
    """
    size = settings.input_size or input_size
    if size % patch:
        below = max(patch, size // patch * patch)
        raise ValueError(f"--input-size {size}: {spec} takes multiples of its patch of {patch} pixels, such as {below}")
    if settings.engine == "openvino":
        from encoders.openvino_engine import OpenVINOEncoder

        return OpenVINOEncoder.load(spec, settings, build, input_size=size)
    device = _device(settings.device)
    dtype = settings.dtype if settings.dtype != "auto" else "bfloat16" if device.type == "cuda" else "float32"
    return TorchEncoder(spec, build(size), input_size=size, device=device, dtype=dtype, compiled=settings.compile)


def _device(device: str) -> torch.device:
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise ValueError("--device cuda: torch finds no GPU here; check the driver, or give --device cpu")
    return torch.device("cuda" if available and device != "cpu" else "cpu")


def _compiled(network: torch.nn.Module, device: torch.device) -> Any:
    """Returns the network compiled for the size of each batch it meets; on a CPU with the weights folded in."""
    return torch.compile(network, dynamic=False, options={"freezing": device.type == "cpu"})


def threads_of(settings: Settings) -> int:
    """Returns the threads of an engine that has its own."""
    return settings.threads or os.cpu_count() or 1
