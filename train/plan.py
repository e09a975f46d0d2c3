"""What a run would cost, for --dry-run: parameters, FLOP, memory, steps and hours, without data, weights or memory."""

import dataclasses
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from train.condition import known_shape, load_conditioner
from train.config import TrainConfig, as_json, resolve
from train.network import build
from train.presets import Preset
from train.size import TRAINING, forward_flop, parameters_of

STATE_BYTES = 20
"""Of a parameter: weight, gradient, two moments and average, float32 each."""


def plan(config: TrainConfig, processes: int = 1) -> dict[str, Any]:
    """Returns the resolved configuration and the costs, as JSON."""
    preset = resolve(config)
    shape = known_shape(config.encoder, config.conditioning)
    if shape is None:
        shape = load_conditioner(config.encoder, weights=config.encoder_weights, device="cpu", conditioning=config.conditioning).shape()
    with torch.device("meta"):
        count = parameters_of(build(preset.network, conditioning=config.conditioning, condition_width=shape[-1]))
    flop = TRAINING * forward_flop(preset.network, conditioning=config.conditioning, condition_shape=shape)
    shares = processes if preset.parallel == "fsdp2" else 1
    memory = {"state": STATE_BYTES * count / shares / 2**30, "activations": activation_bytes(preset, config, shape) / 2**30}
    steps = -(-preset.total_images // preset.batch)
    return {
        "configuration": as_json(dataclasses.asdict(config) | dataclasses.asdict(preset)),
        "parameters": count,
        "flop_per_training_image": flop,
        "memory_gib_per_device": {name: round(value, 2) for name, value in memory.items()},
        "steps": steps,
        "images": steps * preset.batch,
        "training_exaflop": steps * preset.batch * flop / 1e18,
        "hours": round(steps * preset.batch / config.images_per_s / 3600, 1) if config.images_per_s else "give --images-per-s",
        "processes": processes,
    }


def activation_bytes(preset: Preset, config: TrainConfig, condition_shape: tuple[int, ...]) -> int:
    """Returns the bytes that a forward pass of a micro-batch keeps; workspace and the block that is computed again come on top."""
    kept: dict[int, int] = {}
    network_bytes: set[int] = set()

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in network_bytes:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    side, count = preset.network.image_px, preset.micro_batch
    with FakeTensorMode():
        network = build(preset.network, conditioning=config.conditioning, condition_width=condition_shape[-1]).train()
        network_bytes |= {parameter.untyped_storage()._cdata for parameter in network.parameters()}
        inputs = torch.empty(count, 3, side, side), torch.empty(count), torch.empty(count, *condition_shape), torch.empty(count) > 0
        hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
        with hooks, torch.autocast("cpu", torch.bfloat16, enabled=preset.precision == "bf16"):
            held = network(*inputs)
    del held
    return sum(kept.values())
