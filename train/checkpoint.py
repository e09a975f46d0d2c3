"""Checkpoints: folders of safetensors and JSON that are whole or absent; the newest one is what a run goes on from and what sampling loads.

    RUN/checkpoints/images-000000064000/   weights.safetensors, ema.safetensors, optimizer.safetensors, state.json

A folder is written under a temporary name, flushed to the disk and renamed: a kill at any moment leaves the one before it. Nothing is
pickled.
"""

import os
import re
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pagepairs.files import read_json, write_json
from train.diffusion import Schedule
from train.network import Network, NetworkConfig, build

FORMAT_VERSION = 1
_FOLDER, _STATE = "checkpoints", "state.json"
_NAME = re.compile(r"images-(\d{12})")
_TEMPORARY = ".tmp-"


def save(run: str, images_seen: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> str:
    """Writes a checkpoint and returns its folder.

    Args:
      run: folder of the run.
      images_seen: training images so far, which name it.
      tensors: file name, without its ending, to tensors by name.
      state: what else is needed, as JSON; format_version and images_seen are added.
    """
    parent = os.path.join(run, _FOLDER)
    folder, temporary = os.path.join(parent, f"images-{images_seen:012d}"), os.path.join(parent, f"{_TEMPORARY}{uuid.uuid4().hex}")
    os.makedirs(temporary)
    for name, values in tensors.items():
        save_file({key: value.detach().contiguous().cpu() for key, value in values.items()}, os.path.join(temporary, f"{name}.safetensors"))
    write_json(os.path.join(temporary, _STATE), {**state, "format_version": FORMAT_VERSION, "images_seen": images_seen})
    for name in os.listdir(temporary):
        _flush(os.path.join(temporary, name))
    if os.path.exists(folder):  # of a run that was set back by hand
        shutil.rmtree(folder)
    os.rename(temporary, folder)
    _flush(parent)
    return folder


def _flush(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checkpoints_of(run: str) -> list[str]:
    """Returns the complete checkpoints of a run, oldest first."""
    parent = os.path.join(run, _FOLDER)
    names = sorted(name for name in os.listdir(parent) if _NAME.fullmatch(name)) if os.path.isdir(parent) else []
    return [os.path.join(parent, name) for name in names if os.path.exists(os.path.join(parent, name, _STATE))]


def prune(run: str, keep: int) -> None:
    """Deletes all but the newest `keep` checkpoints, and what a kill left half-written."""
    for folder in checkpoints_of(run)[:-keep]:
        shutil.rmtree(folder)
    parent = os.path.join(run, _FOLDER)
    for name in os.listdir(parent) if os.path.isdir(parent) else []:
        if name.startswith(_TEMPORARY):
            shutil.rmtree(os.path.join(parent, name))


def find_checkpoint(path: str) -> str:
    """Returns the folder of a checkpoint: `path` itself, or the newest of the run `path`.

    Raises:
      ValueError: if there is none.
    """
    if os.path.exists(os.path.join(path, _STATE)):
        return path
    found = checkpoints_of(path)
    if not found:
        raise ValueError(
            f"--checkpoint {path}: no complete checkpoint there; give the --output of `pagepairs train`, or one folder of its checkpoints/"
        )
    return found[-1]


def read_state(folder: str) -> dict[str, Any]:
    """Returns the JSON of a checkpoint.

    Raises:
      ValueError: if another version wrote it.
    """
    state: dict[str, Any] = read_json(os.path.join(folder, _STATE))
    if state.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"{folder} has checkpoint version {state.get('format_version')}, this pagepairs reads {FORMAT_VERSION}: train it again"
        )
    return state


def read_tensors(folder: str, name: str, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Returns the tensors of one file of a checkpoint."""
    return load_file(os.path.join(folder, f"{name}.safetensors"), device=str(device))


def model_state(
    network: Network, schedule: Schedule, *, preset: str, encoder: str, encoder_digest: Mapping[str, str], encoder_weights: str
) -> dict[str, Any]:
    """Returns what `load_model` needs to build the network again, as JSON."""
    config = {name: getattr(network.config, name) for name in NetworkConfig.__slots__}
    return {
        "preset": preset,
        "network": config,
        "conditioning": network.conditioning,
        "condition_width": network.condition_width,
        "noise_px": schedule.noise_px,
        "encoder": encoder,
        "encoder_digest": dict(encoder_digest),
        "encoder_weights": encoder_weights,
    }


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trained model, ready to sample from."""

    network: Network
    """In eval mode, with the averaged (EMA) weights."""
    schedule: Schedule
    preset: str
    encoder: str
    """As --encoder named it in training."""
    encoder_weights: str
    encoder_digest: dict[str, str]
    """Of the encoder in training; `check_encoder` compares."""
    images_seen: int
    folder: str
    """The checkpoint."""
    settings: dict[str, Any]
    """All settings of the training run that decide what was learned."""

    def check_encoder(self, digest: Mapping[str, str]) -> None:
        """Raises ValueError if another encoder, or other weights of it, would condition the network."""
        check_encoder(self.encoder_digest, digest)


def check_encoder(trained: Mapping[str, str], given: Mapping[str, str]) -> None:
    """Raises ValueError if two digests of encoders differ: their tokens mean different things to a network."""
    for name in sorted(trained.keys() | given.keys()):
        if trained.get(name) != given.get(name):
            raise ValueError(
                f"--encoder {given.get('name')}: the checkpoint was trained with another one ({name} {trained.get(name)!r}, "
                f"now {given.get(name)!r}); give the encoder and weights of training, or start a new run"
            )


def load_model(path: str, device: torch.device | str) -> Trained:
    """Loads the averaged weights of a run's newest checkpoint, or of one checkpoint.

    Args:
      path: the --output of a run, or a folder of its checkpoints/.
      device: where the network will run.

    Raises:
      ValueError: if there is no checkpoint, or another version wrote it.
    """
    folder = find_checkpoint(path)
    state = read_state(folder)
    model = state["model"]
    shape: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in model["network"].items()}
    with torch.device("meta"):
        network = build(NetworkConfig(**shape), conditioning=model["conditioning"], condition_width=model["condition_width"])
    network.load_state_dict(read_tensors(folder, "ema", device), assign=True)
    return Trained(
        network=network.eval().requires_grad_(False),
        schedule=Schedule(image_px=shape["image_px"], noise_px=model["noise_px"]),
        preset=model["preset"],
        encoder=model["encoder"],
        encoder_weights=model["encoder_weights"],
        encoder_digest=model["encoder_digest"],
        images_seen=state["images_seen"],
        folder=folder,
        settings=state["settings"],
    )
