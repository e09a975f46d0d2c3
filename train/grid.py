"""Sample grids during training: the same noise and conditions each time, from averaged weights, at several strengths of guidance.

B = rows of the grid, H, W = pixels.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pagepairs.files import write_bytes
from train.condition import Conditioner
from train.distributed import World
from train.keyed import stream
from train.reader import Reader
from train.sampler import denoiser, keyed_noise, sample, to_uint8
from train.samples import condition_of, fit
from train.setup import Setup
from train.state import State

GUIDANCES = (0.0, 0.1, 0.5, 1.0)
ROWS = 6


@dataclass(frozen=True, kw_only=True)
class GridInputs:
    """What all grids of a run share."""

    condition_BHW3: np.ndarray
    """The condition images as people see them, uint8, at the network's size."""
    target_BHW3: np.ndarray
    condition_BS: Tensor


@contextmanager
def averaged(state: State) -> Iterator[None]:
    """Puts the averaged weights into the network, in eval mode, and the trained ones back."""
    kept = {name: parameter.detach().clone() for name, parameter in state.network.named_parameters()}
    try:
        with torch.no_grad():
            for name, parameter in state.network.named_parameters():
                parameter.copy_(state.ema[name])
        state.network.eval()
        yield
    finally:
        with torch.no_grad():
            for name, parameter in state.network.named_parameters():
                parameter.copy_(kept[name])
        state.network.train()


def inputs(reader: Reader, conditioner: Conditioner, device: torch.device) -> GridInputs:
    """Returns the conditions of all grids: the first samples of the run's order, as they are, without augmentation."""
    shown = reader.first(ROWS)
    ready = torch.from_numpy(np.stack([condition_of(condition, conditioner) for condition, _ in shown])).to(device)
    side = shown[0][1].shape[0]
    return GridInputs(
        condition_BHW3=np.stack([fit(condition, side) for condition, _ in shown]),
        target_BHW3=np.stack([target for _, target in shown]),
        condition_BS=ready if conditioner.in_threads else conditioner.of_batch(ready),
    )


def draw(state: State, inputs: GridInputs, setup: Setup, world: World) -> None:
    """Writes a grid into RUN/grids/: condition, target, a sample at each of GUIDANCES. All processes must call it, the first writes."""
    side, config = setup.schedule.image_px, setup.config
    noise = keyed_noise([stream(config.seed, f"grid {row}") for row in range(len(inputs.condition_BS))], (3, side, side), world.device)
    columns = [inputs.condition_BHW3, inputs.target_BHW3]
    with averaged(state):
        denoise = denoiser(state.network, inputs.condition_BS, bf16=setup.preset.precision == "bf16")
        columns += [
            to_uint8(sample(denoise, noise, schedule=setup.schedule, steps=config.grid_steps, guidance=guidance)) for guidance in GUIDANCES
        ]
    grid_HW3 = np.concatenate([np.concatenate(list(column_BHW3), axis=0) for column_BHW3 in columns], axis=1)
    if world.first:
        buffer = io.BytesIO()
        Image.fromarray(grid_HW3).save(buffer, "png")
        write_bytes(os.path.join(config.output, "grids", f"images-{state.images_seen:012d}.png"), buffer.getvalue())
