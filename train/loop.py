"""The training loop. Everything is a function of (configuration, seed, images seen): a run that goes on equals one that never stopped.

B = batch, H, W = pixels, S = shape of a condition.
"""

import dataclasses
import itertools
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from pagepairs.files import write_json
from train import checkpoint, grid
from train.config import TrainConfig, as_json, resolve
from train.diffusion import add_noise, loss_per_image
from train.distributed import device_of, joined, total, unsynced
from train.keyed import stream
from train.log import open_log, peak_tflops
from train.meter import Meter, StepSums, Sums
from train.samples import Batch
from train.setup import Setup, describe, make_reader, make_state, prepare, resume
from train.size import forward_flop
from train.state import State, learning_rate, save, update


class DivergedError(ArithmeticError):
    """The loss or the gradient is no longer a number."""


def train(config: TrainConfig, say: Callable[[str], None]) -> int:
    """Trains until the total or a stop signal; returns the images seen. The same call again goes on.

    Raises:
      ValueError: for settings, data or a checkpoint that do not fit, before any work; DataError too if many pairs are damaged.
      DivergedError: if the loss is no longer a number.
    """
    preset = resolve(config)
    with stop_signals() as stopped, joined(device_of(config.device)) as world:
        each = preset.batch // preset.micro_batch
        if each % world.size:
            raise ValueError(
                f"--batch {preset.batch}: its {each} micro-batches do not divide among {world.size} processes; "
                f"give a multiple of {preset.micro_batch * world.size}"
            )
        setup = prepare(config, preset, world)
        state, module = make_state(setup)
        folder = resume(setup, state)
        if world.first:
            write_json(os.path.join(config.output, "config.json"), as_json(dataclasses.asdict(config)))
            say(f"{'goes on from ' + folder if folder else 'begins'}: {describe(setup, state)}")
        return _run(setup, state, module, stopped)


def losses(setup: Setup, module: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Returns the loss and λ of each image of a micro-batch."""
    device, preset = setup.world.device, setup.preset
    condition_BS = batch.condition_BS.to(device, non_blocking=True)
    if not setup.conditioner.in_threads:
        condition_BS = setup.conditioner.of_batch(condition_BS)
    layout = torch.channels_last if preset.channels_last else torch.contiguous_format
    x = batch.target_BHW3.to(device, non_blocking=True).permute(0, 3, 1, 2).float() / 127.5 - 1
    x, eps = x.contiguous(memory_format=layout), batch.eps_B3HW.to(device, non_blocking=True).contiguous(memory_format=layout)
    log_snr_B = setup.schedule.log_snr(batch.t_B)
    z = add_noise(x, eps, log_snr_B.to(device))
    # Dropout depends on the micro-batch alone: on any process, after any resume, it is the same.
    torch.manual_seed(stream(setup.config.seed, f"dropout {batch.number}"))
    with torch.autocast(device.type, torch.bfloat16, enabled=preset.precision == "bf16"):
        v = module(z, log_snr_B.to(device, torch.float32), condition_BS, batch.null_B.to(device))
    return loss_per_image(v, z, eps, log_snr_B.to(device)), log_snr_B


def micro_batches(batch: int, micro_batch: int, images_seen: int, rank: int, size: int) -> Iterator[int]:
    """Yields the numbers of the micro-batches that one of `size` processes computes, from a step on: every size-th one."""
    each = batch // micro_batch
    for step in itertools.count(images_seen // batch):
        yield from range(step * each + rank, (step + 1) * each, size)


def step(setup: Setup, state: State, module: nn.Module, batches: Iterator[Batch], meter: Meter, stop: bool) -> tuple[StepSums, float]:
    """Computes the gradient of a step and changes the state by it; returns the step's losses and the gradient's norm.

    Raises:
      DivergedError: if either is not finite; the state is as before.
    """
    mine = setup.preset.batch // setup.preset.micro_batch // setup.world.size
    sums = Sums(setup.world.device)
    sums.values[0] = float(stop)
    for place in range(mine):
        start = time.perf_counter()
        batch = next(batches)
        meter.waited(time.perf_counter() - start)
        with unsynced(module, last=place == mine - 1):
            loss_B, log_snr_B = losses(setup, module, batch)
            (loss_B.mean() / mine).backward()  # type: ignore[no-untyped-call]
        sums.add(loss_B, log_snr_B)
    total(sums.values, setup.world)
    found, before = sums.finish(), state.images_seen // setup.preset.batch
    try:
        if not math.isfinite(found.loss):
            raise FloatingPointError(f"the loss is {found.loss}")
        return found, update(state, setup.preset, setup.config.clip)
    except FloatingPointError as error:
        newest = (checkpoint.checkpoints_of(setup.config.output) or ["none"])[-1]
        raise DivergedError(
            f"{error} between step {before} and step {before + 1}; the newest checkpoint is {newest}; start a new run with a lower --lr, "
            "a longer --warmup-steps or --precision float32"
        ) from error


def _run(setup: Setup, state: State, module: nn.Module, stopped: list[int]) -> int:
    config, preset, world = setup.config, setup.preset, setup.world
    reader = make_reader(setup)
    meter = Meter(
        device=world.device,
        processes=world.size,
        forward_flop=forward_flop(preset.network, conditioning=config.conditioning, condition_shape=setup.condition_shape),
        peak_tflops=peak_tflops(world.device, config.peak_tflops),
        every_images=config.log_images,
    )
    numbers = micro_batches(preset.batch, preset.micro_batch, state.images_seen, world.rank, world.size)
    inputs: grid.GridInputs | None = None
    module.train()
    with open_log(config.output, state.images_seen, preset.total_images, world.first) as log, closing(reader.batches(numbers)) as batches:
        while state.images_seen < preset.total_images:
            sums, norm = step(setup, state, module, batches, meter, stop=bool(stopped))
            for line in reader.new_warnings():
                log.say(line)
            if meter.add(sums, preset.batch):
                log.write(state.images_seen, meter.line(norm, learning_rate(preset, state.images_seen // preset.batch - 1), reader.skipped))
            start, done = time.perf_counter(), sums.stop or state.images_seen >= preset.total_images
            if done or _crossed(state.images_seen, preset.batch, config.checkpoint_images or preset.total_images // 20):
                save(state, config.output, _about(setup, state), config.keep_checkpoints, world)
            if sums.stop:
                break
            if _crossed(state.images_seen, preset.batch, config.grid_images or preset.total_images // 5):
                inputs = inputs or grid.inputs(reader, setup.conditioner, world.device)
                grid.draw(state, inputs, setup, world)
            meter.pause(time.perf_counter() - start)
    return state.images_seen


def _crossed(images_seen: int, batch: int, every: int) -> bool:
    """Whether the last step reached or passed a multiple of `every`."""
    return images_seen // max(1, every) > (images_seen - batch) // max(1, every)


def _about(setup: Setup, state: State) -> dict[str, Any]:
    model = checkpoint.model_state(
        state.network,
        setup.schedule,
        preset=setup.preset.name,
        encoder=setup.config.encoder,
        encoder_digest=setup.conditioner.encoder.digest,
        encoder_weights=setup.config.encoder_weights,
    )
    return {"settings": setup.settings, "model": model}


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Gathers Ctrl-C and SIGTERM, so that a step ends and is saved; a second one acts as it always does."""
    caught: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        caught.append(number)
        for name, handler in before.items():
            signal.signal(name, handler)

    before = {name: signal.signal(name, note) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
