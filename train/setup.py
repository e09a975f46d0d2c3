"""What a run is made of before its first step: checked settings, data, encoder, network; and the checkpoint that it goes on from."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from train import checkpoint
from train.condition import Conditioner, load_conditioner
from train.config import TrainConfig, identity
from train.diffusion import Schedule
from train.distributed import World, share
from train.groups import Groups, open_classes, open_shards
from train.keyed import stream
from train.network import build
from train.presets import Preset
from train.reader import Reader, ReaderConfig, check_sizes
from train.state import State, begin, restore


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What stays the same from the first step to the last."""

    config: TrainConfig
    preset: Preset
    world: World
    conditioner: Conditioner
    condition_shape: tuple[int, ...]
    groups: Groups
    schedule: Schedule
    settings: dict[str, Any]
    """What decides the run, as checkpoints hold it."""


def prepare(config: TrainConfig, preset: Preset, world: World) -> Setup:
    """Checks data and encoder and returns what the run needs."""
    groups = open_classes(config.data) if config.mode == "label" else open_shards(config.data, config.mode)
    check_sizes(groups, preset.network.image_px, config.data)
    conditioner = load_conditioner(
        config.encoder, weights=config.encoder_weights, device=world.device.type, conditioning=config.conditioning
    )
    settings = identity(config) | {"data_digest": groups.digest, "encoder_digest": dict(conditioner.encoder.digest)}
    return Setup(
        config=config,
        preset=preset,
        world=world,
        conditioner=conditioner,
        condition_shape=conditioner.shape(),
        groups=groups,
        schedule=Schedule(image_px=preset.network.image_px),
        settings=settings,
    )


def make_state(setup: Setup) -> tuple[State, nn.Module]:
    """Returns the state before the first step, and the module that forward passes go through."""
    preset, device = setup.preset, setup.world.device
    torch.manual_seed(stream(setup.config.seed, "weights"))
    with device:
        network = build(preset.network, conditioning=setup.config.conditioning, condition_width=setup.condition_shape[-1])
    if preset.channels_last:
        network.to(memory_format=torch.channels_last)
    if preset.compile:
        network.compile()
    module = share(network, preset.parallel, setup.world)
    return begin(network), module


def resume(setup: Setup, state: State) -> str:
    """Brings the state of the newest checkpoint back; returns its folder, "" where there is none.

    Raises:
      ValueError: if other settings made it.
    """
    found = checkpoint.checkpoints_of(setup.config.output)
    if not found:
        return ""
    saved = checkpoint.read_state(found[-1])["settings"]
    checkpoint.check_encoder(saved["encoder_digest"], setup.settings["encoder_digest"])
    check_same(saved, setup.settings, setup.config.output)
    restore(state, found[-1], setup.preset)
    return found[-1]


def check_same(saved: Mapping[str, Any], given: Mapping[str, Any], output: str) -> None:
    """Raises ValueError if a run would go on with other settings than it began with."""
    for name in ("preset", *sorted(given.keys() | saved.keys())):
        if saved.get(name) == given.get(name):
            continue
        if name == "data_digest":
            raise ValueError(f"--data: these are not the shards that {output} began with; give those, or a new --output")
        flag = name.replace("_", "-")
        raise ValueError(f"--{flag} {given.get(name)}: {output} began with {saved.get(name)}; give that, or a new --output")


def describe(setup: Setup, state: State) -> str:
    """Returns one line about the run."""
    preset, count = setup.preset, sum(parameter.numel() for parameter in state.network.parameters())
    return (
        f"{preset.name}, {count / 1e6:.1f} M parameters on {setup.world.size} x {setup.world.device.type}, "
        f"{sum(setup.groups.sizes)} samples an epoch, {state.images_seen} of {preset.total_images} images seen, {preset.batch} a step"
    )


def make_reader(setup: Setup) -> Reader:
    """Returns the reader of the run's samples."""
    config = setup.config
    settings = ReaderConfig(
        image_px=setup.preset.network.image_px,
        micro_batch=setup.preset.micro_batch,
        seed=config.seed,
        same_image=config.mode == "reconstruction",
        condition_dropout=config.condition_dropout,
        augment=config.augment,
        window_groups=config.window_groups,
        threads=config.threads or min(4, os.cpu_count() or 1),
    )
    return Reader(setup.groups, setup.conditioner, settings)
