"""Ancestral sampling: from noise to images in `steps` steps, with guidance.

B = batch, C = colour channels, H, W = pixels, S = the shape of a condition.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from train.diffusion import Schedule, posterior_step, x_from_v
from train.network import Network

Denoise = Callable[[Tensor, Tensor, bool], Tensor]
"""From z_BCHW, λ_B (float64, on the CPU) and whether the condition is seen, to v_BCHW."""
Noise = Callable[[int], Tensor]
"""From the number of a step to standard normal noise, (B, C, H, W) float32: 0 for the start, k for the step from k/steps."""


@torch.no_grad()
def sample(denoise: Denoise, noise: Noise, *, schedule: Schedule, steps: int, guidance: float = 0.0, interpolation: float = 0.2) -> Tensor:
    """Returns images in [-1, 1], float32 (B, C, H, W), on the noise's device.

    Args:
      denoise: the network with its condition, as `denoiser` returns it.
      noise: standard normal noise for every step, as `keyed_noise` returns it.
      schedule: that of training.
      steps: N >= 1; 256 are good for monitoring, 512 for reported numbers.
      guidance: w >= 0; v = (1+w)·conditional - w·unconditional. 0 is plain conditional and calls the network once a step.
      interpolation: between the lower (0) and the upper (1) variance of a step, see `posterior_step`.
    """
    log_snr_T = schedule.log_snr(torch.arange(steps + 1, dtype=torch.float64) / steps)
    z = noise(0)
    for step in range(steps, 0, -1):
        log_snr_B = log_snr_T[step].expand(len(z))
        v = denoise(z, log_snr_B, True)
        if guidance != 0:
            v = (1 + guidance) * v - guidance * denoise(z, log_snr_B, False)
        x = x_from_v(z, v, log_snr_B).clamp(-1, 1)
        if step == 1:
            return x
        move = posterior_step(float(log_snr_T[step]), float(log_snr_T[step - 1]), interpolation)
        z = move.z_weight * z + move.x_weight * x + move.std * noise(step)
    raise ValueError(f"--steps {steps}: give at least 1")


def denoiser(network: Network, condition_BS: Tensor, *, bf16: bool = False) -> Denoise:
    """Returns the network bound to the conditions of a batch; without one it sees the learned null condition.

    Args:
      network: in eval mode.
      condition_BS: tokens (B, N, C) or global vectors (B, D), as the network's conditioning asks, on its device.
      bf16: runs the network under bfloat16 autocast; z and v stay float32.
    """
    null_B = torch.ones(len(condition_BS), dtype=torch.bool, device=condition_BS.device)

    def denoise(z_BCHW: Tensor, log_snr_B: Tensor, conditional: bool) -> Tensor:
        with torch.autocast(z_BCHW.device.type, torch.bfloat16, enabled=bf16):
            v: Tensor = network(z_BCHW, log_snr_B.to(z_BCHW.device, torch.float32), condition_BS, None if conditional else null_B)
        return v.float()

    return denoise


def keyed_noise(seeds: Sequence[int], shape: tuple[int, int, int], device: torch.device | str = "cpu") -> Noise:
    """Returns noise that depends on each image's seed and the step alone, not on its batch or the device.

    Args:
      seeds: one of each image, in [0, 2**64).
      shape: (C, H, W).
      device: where the noise is used.
    """

    def noise(step: int) -> Tensor:
        generators = [np.random.Generator(np.random.Philox(key=np.array([seed, step], np.uint64))) for seed in seeds]
        return torch.from_numpy(np.stack([generator.standard_normal(shape, np.float32) for generator in generators])).to(device)

    return noise


def to_uint8(x_BCHW: Tensor) -> np.ndarray:
    """Returns images as pixels, uint8 (B, H, W, C): rounded, then clipped."""
    pixels_BHWC = ((x_BCHW.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
    return np.ascontiguousarray(pixels_BHWC.cpu().numpy())
