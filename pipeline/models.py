"""The encoders of a run: how each is loaded, and whether those of a worker are the ones that the run began with."""

import dataclasses
import functools
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from apache_beam.options.pipeline_options import PipelineOptions

from encoders import Encoder, encoder_folder, load_encoder
from encoders.table import entry_of
from pagepairs.config import EmbedConfig
from pipeline.runners import is_local, promises_gpu

_CHOICES = ("device", "dtype", "compile", "input_size", "engine")


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """What is known of a loaded encoder, and what readies its images: small, so that it can be sent to another process."""

    name: str
    width: int
    input_size: int
    batched: bool
    digest: dict[str, str]
    preprocess: Callable[[np.ndarray], np.ndarray]


class Models:
    """The encoders of one process, or of all processes of a machine: then these are called through a socket, arrays in, arrays out."""

    def __init__(self, encoders: Sequence[Encoder]) -> None:
        self._encoders = list(encoders)

    def describe(self) -> list[Described]:
        """Returns what the caller needs to know; preprocessing is the caller's work, so that it stays in its threads."""
        return [
            Described(
                name=encoder.name,
                width=encoder.width,
                input_size=encoder.input_size,
                batched=encoder.batched,
                digest=encoder.digest,
                preprocess=encoder.preprocess,
            )
            for encoder in self._encoders
        ]

    def embed(self, index: int, batch_BHW3: np.ndarray) -> np.ndarray:
        """Returns the vectors of one encoder, float32 (B, D)."""
        return self._encoders[index].embed(batch_BHW3)

    def release_memory(self) -> None:
        """Gives back the GPU memory that a failed pass left cached."""
        if "torch" in sys.modules and sys.modules["torch"].cuda.is_initialized():
            sys.modules["torch"].cuda.empty_cache()


@functools.lru_cache(maxsize=1)
def load_models(config: EmbedConfig) -> Models:
    """Loads the encoders once a process.

    Their arithmetic gets all cores whatever --workers and --threads are: the number of threads can change the last bits of a vector.
    """
    threads = os.cpu_count() or 1
    loaded = []
    for spec, weights in zip(config.encoders, config.weights, strict=True):
        # Beside other networks each takes the choices that are meant for it; alone, it refuses those that it has not got.
        names = entry_of(spec).choices if len(config.encoders) > 1 else _CHOICES
        choices: dict[str, Any] = {name: getattr(config, name) for name in names}
        loaded.append(load_encoder(spec, weights=weights, threads=threads, **choices))
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    return Models(loaded)


def check_names(config: EmbedConfig) -> None:
    """Raises ValueError if two encoders would write to one folder."""
    folders = [encoder_folder(spec) for spec in config.encoders]
    for folder in folders:
        if folders.count(folder) > 1:
            raise ValueError(f"--encoder {config.encoder}: two of them are called {folder}; rename a file, or embed them into two outputs")


def here_and_there(config: EmbedConfig, options: PipelineOptions) -> tuple[EmbedConfig, EmbedConfig]:
    """Returns the settings with which the encoders are loaded here, where the run begins, and on the workers.

    A cluster's workers have a GPU where one is promised (--gpu-type, --device cuda, or by the service's options); the machine that starts
    the job need not. So it loads the encoders on its CPU, to name them by their digest, in the arithmetic that the GPU will use.
    """
    by_service = promises_gpu(options) and config.device == "auto" and any("device" in entry_of(spec).choices for spec in config.encoders)
    if is_local(options) or not (config.gpu_type or config.device == "cuda" or by_service):
        return config, config
    dtype = "bfloat16" if config.dtype == "auto" else config.dtype
    there = dataclasses.replace(config, device="cuda", dtype=dtype)
    return dataclasses.replace(there, device="cpu", gpu_type=""), there


def difference(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """Returns in words what tells two digests apart; "" where they are equal."""
    names = [*before, *(name for name in after if name not in before)]
    changed = [name for name in names if before.get(name) != after.get(name)]
    return "; ".join(f"{name} {before.get(name)!r} there, {after.get(name)!r} here" for name in changed)


def check_worker(models: Models, digests: Sequence[Mapping[str, str]]) -> None:
    """Refuses encoders that are not those that the run began with: other weights, library or arithmetic on a worker.

    Raises:
      ValueError: naming what differs.
    """
    for begun, found in zip(digests, models.describe(), strict=True):
        changed = difference(begun, found.digest)
        if changed:
            raise ValueError(
                f"a worker has another {found.name} than the machine that started the run ({changed}): "
                "give both the same image and weights, and name --device and --dtype"
            )
