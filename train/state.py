"""What training changes: weights, their average and the optimizer's moments; how a step changes them; to and from checkpoints."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from train import checkpoint
from train.distributed import World, put, whole
from train.network import Network
from train.presets import Preset

BETAS, EPSILON = (0.9, 0.99), 1e-12
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(kw_only=True)
class State:
    """The state of a run between two steps."""

    network: Network
    ema: dict[str, Tensor]
    """Averaged weights by name, beginning as a copy of the initial ones."""
    optimizer: torch.optim.Optimizer
    images_seen: int = 0

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """The weights by name."""
        return dict(self.network.named_parameters())


def begin(network: Network) -> State:
    """Returns the state before the first step; the network is sharded already where it will be."""
    ema = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    optimizer = torch.optim.Adam(network.parameters(), betas=BETAS, eps=EPSILON, fused=True)
    return State(network=network, ema=ema, optimizer=optimizer)


def learning_rate(preset: Preset, step: int) -> float:
    """Returns the rate of a step, counted from 0: a linear warm-up, then constant."""
    return preset.lr * min(1.0, (step + 1) / max(1, preset.warmup_steps))


def update(state: State, preset: Preset, clip: float) -> float:
    """Changes weights and average by the gradients that a step has gathered; returns their norm before clipping.

    Raises:
      FloatingPointError: if the norm is not finite; nothing is changed then.
    """
    parameters = list(state.network.parameters())
    norm = float(whole(torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])))
    if not math.isfinite(norm):
        raise FloatingPointError(f"the norm of the gradient is {norm}")
    scale = min(1.0, clip / (norm + 1e-6))
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.mul_(scale)
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(preset, state.images_seen // preset.batch)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    with torch.no_grad():
        for name, parameter in state.network.named_parameters():
            state.ema[name].lerp_(parameter, 1 - preset.ema)
    state.images_seen += preset.batch
    return norm


def save(state: State, run: str, extra: dict[str, Any], keep: int, world: World) -> None:
    """Writes a checkpoint from the first process, and deletes all but the newest `keep`; all processes must call it."""
    parameters = state.named_parameters()
    tensors = {
        "weights": {name: _host(parameter, world) for name, parameter in parameters.items()},
        "ema": {name: _host(value, world) for name, value in state.ema.items()},
        "optimizer": {
            f"{moment}.{name}": _host(state.optimizer.state[parameter][moment], world)
            for name, parameter in parameters.items()
            for moment in _MOMENTS
            if parameter in state.optimizer.state
        },
    }
    if world.first:
        checkpoint.save(run, state.images_seen, tensors, extra)
        checkpoint.prune(run, keep)


def _host(tensor: Tensor, world: World) -> Tensor:
    value = whole(tensor.detach())
    return value.cpu() if world.first else torch.empty(0)


def restore(state: State, folder: str, preset: Preset) -> None:
    """Brings back the state that a checkpoint holds, one tensor at a time."""
    parameters = state.named_parameters()
    _read(folder, "weights", dict(parameters))
    _read(folder, "ema", state.ema)
    state.images_seen = int(checkpoint.read_state(folder)["images_seen"])
    step = state.images_seen // preset.batch
    if step:
        for parameter in parameters.values():
            moments = {moment: torch.zeros_like(parameter) for moment in _MOMENTS}
            state.optimizer.state[parameter] = {"step": torch.tensor(float(step), device=parameter.device), **moments}
        _read(
            folder,
            "optimizer",
            {f"{moment}.{name}": state.optimizer.state[parameter][moment] for name, parameter in parameters.items() for moment in _MOMENTS},
        )


def _read(folder: str, name: str, targets: dict[str, Any]) -> None:
    with safe_open(f"{folder}/{name}.safetensors", framework="pt") as file:
        if set(file.keys()) != set(targets):
            raise ValueError(f"{folder}: {name} has other tensors than this network; start a new run with another --output")
        for key, target in targets.items():
            put(target, file.get_tensor(key))
