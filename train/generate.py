"""A trained model as something that draws images: checkpoint, condition encoder and sampler together."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
import torch

from train.checkpoint import Trained, load_model
from train.condition import Conditioner, load_conditioner
from train.distributed import device_of
from train.sampler import denoiser, keyed_noise, sample, to_uint8

_SHARD_PX = 256
"""Side of the images of shards, where `pagepairs shard` is not told another one."""


class ModelGenerator:
    """Draws from averaged weights; the interface is `sample_files.Generator`.

    On a CPU every image is drawn by itself, in one thread of its own: the order in which a matrix product sums depends on its shape and on
    threads, so a batch would leave its mark on every image in it. On a GPU images are drawn in batches, and one that is drawn again in
    another batch may differ in the last bit of some pixels.
    """

    def __init__(self, trained: Trained, conditioner: Conditioner, *, steps: int, interpolation: float, batch: int, device: str) -> None:
        """Takes a loaded model and its encoder; `load_generator` finds and checks both."""
        self._trained, self._conditioner, self._device = trained, conditioner, torch.device(device)
        self._steps, self._interpolation = steps, interpolation
        self._bf16 = self._device.type == "cuda" and trained.settings.get("precision") == "bf16"
        self.image_px = trained.schedule.image_px
        self.condition_px = max(_SHARD_PX, self.image_px)
        self.batch = (os.cpu_count() or 1) if self._device.type == "cpu" else batch
        self.digest: Mapping[str, Any] = {
            "weights": _sha256(os.path.join(trained.folder, "ema.safetensors")),
            "preset": trained.preset,
            "images_seen": trained.images_seen,
            "condition_encoder": dict(trained.encoder_digest),
            "steps": steps,
            "interpolation": interpolation,
        }

    def draw(self, conditions: Sequence[np.ndarray], seeds: Sequence[int], guidance: float) -> np.ndarray:
        """Returns one image for each condition (uint8 square) and its seed: uint8 (B, image_px, image_px, 3)."""
        if self._device.type != "cpu":
            return self._draw(conditions, seeds, guidance)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with ThreadPoolExecutor(self.batch) as pool:
                ones = pool.map(lambda condition, seed: self._draw([condition], [seed], guidance), conditions, seeds)
                return np.concatenate(list(ones))
        finally:
            torch.set_num_threads(threads)

    def _draw(self, conditions: Sequence[np.ndarray], seeds: Sequence[int], guidance: float) -> np.ndarray:
        prepared = [self._conditioner.encoder.preprocess(image) for image in conditions]
        condition_BS = self._conditioner.of_batch(torch.from_numpy(np.stack(prepared)).to(self._device))
        image_BCHW = sample(
            denoiser(self._trained.network, condition_BS, bf16=self._bf16),
            keyed_noise(seeds, (3, self.image_px, self.image_px), self._device),
            schedule=self._trained.schedule,
            steps=self._steps,
            guidance=guidance,
            interpolation=self._interpolation,
        )
        return to_uint8(image_BCHW)


def load_generator(
    checkpoint: str,
    *,
    condition_encoder: str,
    condition_weights: str,
    steps: int,
    interpolation: float,
    batch: int,
    device: Literal["auto", "cpu", "cuda"],
) -> ModelGenerator:
    """Loads a run's newest checkpoint, or one checkpoint, with the encoder that it was trained with.

    Args:
      checkpoint: as `checkpoint.load_model` takes it.
      condition_encoder: "" takes the encoder that the checkpoint names; else the same one under another path.
      condition_weights: likewise for its weights.
      steps: of sampling.
      interpolation: between the variances of a step.
      batch: images at a time on a GPU.
      device: auto, cpu or cuda.

    Raises:
      ValueError: if there is no checkpoint, no such device, or the encoder is another one than in training.
    """
    where = device_of(device).type
    trained = load_model(checkpoint, where)
    conditioner = load_conditioner(
        condition_encoder or trained.encoder,
        weights=condition_weights or ("" if condition_encoder else trained.encoder_weights),
        device=where,
        conditioning=trained.network.conditioning,
    )
    trained.check_encoder(conditioner.encoder.digest)
    return ModelGenerator(trained, conditioner, steps=steps, interpolation=interpolation, batch=batch, device=where)


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
