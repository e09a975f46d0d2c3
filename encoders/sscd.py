"""SSCD, a descriptor of copies (arXiv 2202.10261), from the TorchScript file that Meta publishes: `sscd:PATH`.

It tells whether two images are made of one photo, not whether they show alike things; its cuts are known (0.45 against evaluation sets,
0.75 for 90 % precision), which is why benchmarks are kept out with it. Preprocessing is that of its batched evaluation: squashed to
320 x 320, bilinear and antialiased, mean and deviation of ImageNet. The network is one opaque module: its only token is the vector.

A TorchScript file is a program: load one from people you trust only.
"""

import hashlib
import os
import warnings
from typing import Any

import torch

from encoders import torch_encoder
from encoders.preprocessing import RECIPES
from encoders.table import Settings, encoder_folder

SIZE = 320
_STRIDE = 32


class _Body(torch.nn.Module):
    """The network as torch_encoder runs it: the vector, and as its only token the vector again."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels_BCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        vector_BD = self.network(pixels_BCHW)
        return vector_BD, vector_BD[:, None, :]


def load(spec: str, settings: Settings) -> Any:
    """Loads the file.

    Raises:
      ValueError: if there is none, it is no TorchScript, or does not turn images into vectors.
    """
    path = spec.removeprefix("sscd:")
    if settings.weights:
        raise ValueError(f"--encoder-weights {settings.weights}: the weights of {spec} are in the file itself; leave the flag out")
    if settings.engine != "torch" or settings.compile:
        raise ValueError(f"--engine and --compile: {spec} is a finished program; leave the flags out")
    if not os.path.isfile(path):
        raise ValueError(f"--encoder {spec}: there is no file {path}")

    def build(size_px: int) -> torch_encoder.Built:
        network = _read(spec, path)
        with open(path, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        width = _width(spec, network, size_px)
        return torch_encoder.Built(
            body=_Body(network), width=width, weights_sha256=sha256, library="TorchScript", recipe=RECIPES["sscd"], bfloat16="autocast"
        )

    return torch_encoder.load(encoder_folder(spec), settings, build, input_size=SIZE, patch=_STRIDE)


def _read(spec: str, path: str) -> torch.nn.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.jit.load is deprecated; the file is published in no other form
            network: torch.nn.Module = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
    except Exception as error:  # a broken file raises anything from RuntimeError to the archive reader's own classes
        raise ValueError(f"--encoder {spec}: {path} is no TorchScript file ({type(error).__name__})") from error
    return network


def _width(spec: str, network: torch.nn.Module, size_px: int) -> int:
    with torch.no_grad():
        vector = network(torch.zeros(1, 3, size_px, size_px))
    if not isinstance(vector, torch.Tensor) or vector.ndim != 2 or vector.shape[0] != 1:
        raise ValueError(f"--encoder {spec}: the network does not turn a batch of images into one vector each")
    return int(vector.shape[1])
