"""DINOv2 through transformers: the CLS token after the final LayerNorm, from 224-pixel images.

Preprocessing, version 1, is what the checkpoints' own processor does: antialiased bicubic resize of the shortest side to 256, the
longest being rounded down; the middle 224 x 224, whose offset is rounded down too; mean and deviation of ImageNet. Crop and resize
run on uint8 in the caller's thread, the rest where the network runs.

Float32 on a CPU, bfloat16 autocast on a GPU. Rows of a batch do not see each other, but the shape of a matrix product decides the
order of its sums: run batches of one size (`encoders.embed_all`). On a CPU no component of a vector differs by more than 1e-5
between batch sizes.

Libraries resample the position grid from 518 to 224 pixels in different ways: never compare vectors of two libraries.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers
from huggingface_hub import snapshot_download
from transformers import Dinov2Config, Dinov2Model

from encoders.resize import resize

PREPROCESSING = "shortest-256-crop-224-v1"
SIZE = 224
RESIZED = 256
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_WEIGHTS_FILES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What tells the published models apart."""

    width: int
    layers: int
    heads: int

    def config(self) -> Dinov2Config:
        """Returns the configuration of the network, patches of 14 pixels, trained at 518."""
        return Dinov2Config(
            hidden_size=self.width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            image_size=518,
            patch_size=14,
        )


SHAPES = {
    "dinov2-small": Shape(width=384, layers=12, heads=6),
    "dinov2-base": Shape(width=768, layers=12, heads=12),
    "dinov2-large": Shape(width=1024, layers=24, heads=16),
}


class Dinov2:
    """An encoder `dinov2-*`; the interface is `encoders.Encoder`."""

    input_size = SIZE

    def __init__(self, name: str, model: Any, *, weights_sha256: str, device: torch.device) -> None:
        """Takes a loaded model; `load` finds and checks one."""
        self.name = name
        self.width = int(model.config.hidden_size)
        self.digest = {"name": name, "weights": weights_sha256, "preprocessing": PREPROCESSING, "library": "transformers"}
        self.device = device
        self._model = model.requires_grad_(False).to(device)  # from_pretrained left it in eval mode
        self._mean_C11 = torch.tensor(_MEAN, device=device)[:, None, None]
        self._deviation_C11 = torch.tensor(_DEVIATION, device=device)[:, None, None]

    def preprocess(self, rgb_HW3: np.ndarray) -> np.ndarray:
        """Returns uint8 (224, 224, 3)."""
        height, width = rgb_HW3.shape[:2]
        shortest = min(height, width)
        height, width = height * RESIZED // shortest, width * RESIZED // shortest
        top, left = (height - SIZE) // 2, (width - SIZE) // 2
        return resize(rgb_HW3, height=height, width=width)[top : top + SIZE, left : left + SIZE].copy()

    def embed(self, batch_BHW3: np.ndarray) -> np.ndarray:
        """Returns float32 (B, D): CLS tokens, of unit norm."""
        return torch.nn.functional.normalize(self._forward(batch_BHW3)[:, 0], dim=-1).cpu().numpy()

    def tokens(self, batch_BHW3: np.ndarray) -> np.ndarray:
        """Returns float32 (B, 257, D) after the final LayerNorm: the CLS token, then the 16 x 16 patches row by row."""
        return self._forward(batch_BHW3).cpu().numpy()

    # In here and not in the caller: another thread or process that shares the model has no such context of its own.
    @torch.inference_mode()
    def _forward(self, batch_BHW3: np.ndarray) -> torch.Tensor:
        pixels_BCHW = torch.from_numpy(batch_BHW3).to(self.device).permute(0, 3, 1, 2).float() / 255
        pixels_BCHW = (pixels_BCHW - self._mean_C11) / self._deviation_C11
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda"):
            tokens_BNC: torch.Tensor = self._model(pixels_BCHW).last_hidden_state
        return tokens_BNC.float()


def load(spec: str, *, weights: str, device: str, threads: int) -> Dinov2:
    """Loads a published model from the hub, or from a folder that holds the same."""
    del threads
    place = _device(device)
    return load_folder(spec, SHAPES[spec], weights or _download(spec), place)


def load_folder(name: str, shape: Shape, folder: str, device: torch.device) -> Dinov2:
    """Loads the checkpoint in `folder`, in the format that transformers saves.

    Raises:
      ValueError: if there is none, or a tensor is missing, left over or of another size than in `shape`.
    """
    path = _weights_file(folder)
    model, report = _read(folder, path, shape)
    differences = [f"{key} is {list(found)} there and {list(wanted)} in {name}" for key, found, wanted in sorted(report["mismatched_keys"])]
    differences += [f"{key} is missing" for key in sorted(report["missing_keys"])]
    differences += [f"{key} is left over" for key in sorted(report["unexpected_keys"])]
    if differences:
        first = "; ".join(differences[:2])
        raise ValueError(f"--encoder-weights {folder} does not fit --encoder {name}: {first} ({len(differences)} differences in all)")
    with open(path, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Dinov2(name, model, weights_sha256=sha256, device=device)


def _read(folder: str, path: str, shape: Shape) -> Any:
    """Returns the model, on the CPU, and transformers' report on how the weights in `path` fitted."""
    try:
        with _quiet():
            return Dinov2Model.from_pretrained(
                folder,
                config=shape.config(),
                dtype=torch.float32,
                use_safetensors=path.endswith(".safetensors"),
                weights_only=True,  # a pickle may hold tensors, nothing that runs
                ignore_mismatched_sizes=True,  # the report has them
                output_loading_info=True,
            )
    except Exception as error:  # a broken file raises anything from IndexError to the reader's own classes
        kind = type(error).__name__
        trouble = f"{path} is broken or holds more than tensors ({kind})"
        raise ValueError(f"--encoder-weights {folder}: {trouble}; fetch it again, as safetensors") from error


def _device(device: str) -> torch.device:
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise ValueError("--device cuda: torch finds no GPU here; check the driver, or give --device cpu")
    return torch.device("cuda" if available and device != "cpu" else "cpu")


def _download(name: str) -> str:
    """Returns the folder of the published weights, from the hub or its local cache; safetensors only."""
    repository = f"facebook/{name}"
    try:
        return snapshot_download(repository, allow_patterns=["config.json", _WEIGHTS_FILES[0]])
    except OSError as error:
        raise ValueError(
            f"--encoder {name}: the weights are neither on this machine nor could they be downloaded; run "
            f"'hf download {repository} --local-dir {name}' where there is a network and give --encoder-weights {name}, "
            "or use --encoder builtin, which needs none"
        ) from error


def _weights_file(folder: str) -> str:
    for name in _WEIGHTS_FILES:
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            return path
    raise ValueError(f"--encoder-weights {folder}: there is no {' or '.join(_WEIGHTS_FILES)} in that folder")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps transformers' table of differences and its progress bar off the screen: `load_folder` says what matters in one sentence."""
    logging: Any = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
