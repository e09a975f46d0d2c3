"""The sampler, against the closed form of a Gaussian world and against itself."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from train.diffusion import Schedule, alpha_sigma
from train.network import NetworkConfig, build
from train.sampler import denoiser, keyed_noise, sample, to_uint8

SCHEDULE = Schedule(image_px=64)
MEAN, STD = 0.1, 0.05  # so narrow that the clip to [-1, 1] never acts


def exact(z: torch.Tensor, log_snr_B: torch.Tensor, conditional: bool) -> torch.Tensor:
    """The v of the best denoiser for pixels of N(MEAN, STD²)."""
    alpha, sigma = (value[0].item() for value in alpha_sigma(log_snr_B))
    x = MEAN + alpha * STD**2 / (alpha**2 * STD**2 + sigma**2) * (z - alpha * MEAN)
    return (alpha * z - x) / sigma


def theory(steps: int, interpolation: float) -> tuple[float, float]:
    """Mean and variance of the samples: the chain is linear in z, so both follow a recursion, here in the textbook's own terms."""
    mean, variance = 0.0, 1.0
    for k in range(steps, 0, -1):
        (a, b), (c, d) = (tuple(value.item() for value in alpha_sigma(SCHEDULE.log_snr(torch.tensor(i / steps)))) for i in (k, k - 1))
        gain = a * STD**2 / (a**2 * STD**2 + b**2)  # x̂ = MEAN + gain · (z - a · MEAN)
        if k == 1:
            return MEAN + gain * (mean - a * MEAN), gain**2 * variance
        forward = b**2 - (a / c) ** 2 * d**2  # q(z_t | z_s)
        z_weight, x_weight = (a / c) * d**2 / b**2, c * forward / b**2
        added = math.exp(interpolation * math.log(forward) + (1 - interpolation) * math.log(forward * d**2 / b**2))
        slope = z_weight + x_weight * gain
        mean, variance = slope * mean + x_weight * (MEAN - gain * a * MEAN), slope**2 * variance + added
    raise AssertionError


@pytest.mark.parametrize("interpolation", [0.2, 0.8])
@pytest.mark.parametrize("steps", [8, 64])
def test_samples_of_a_gaussian_world_have_the_mean_and_variance_of_theory(steps: int, interpolation: float) -> None:
    images = sample(exact, keyed_noise(range(64), (3, 32, 32)), schedule=SCHEDULE, steps=steps, interpolation=interpolation).double()
    mean, variance = theory(steps, interpolation)
    count = images.numel()
    assert images.mean().item() == pytest.approx(mean, abs=5 * math.sqrt(variance / count))
    assert images.var().item() == pytest.approx(variance, rel=5 * math.sqrt(2 / count))


def test_many_steps_reach_the_true_variance_and_a_larger_one_with_f() -> None:
    ratios = [theory(1024, interpolation)[1] / STD**2 for interpolation in (0.0, 0.2, 0.8, 1.0)]
    assert ratios == sorted(ratios)
    assert ratios == pytest.approx([0.888, 0.915, 1.007, 1.042], abs=1e-3)
    assert theory(4096, 0.2)[1] / STD**2 == pytest.approx(1, abs=0.03)


@pytest.fixture(scope="module")
def model() -> tuple[Callable[..., torch.Tensor], torch.Tensor]:
    torch.manual_seed(0)
    config = NetworkConfig(image_px=16, channels=(16, 32), blocks=(1, 1), transformer_from=1, embedding=32, head_width=16, dropout=0.1)
    network = build(config, conditioning="cross_attention", condition_width=8)
    with torch.no_grad():
        for parameter in network.parameters():  # zero-initialised layers would hide what the network does
            parameter.add_(torch.randn_like(parameter) * 0.05)
    network.eval()
    return network, torch.randn(3, 5, 8)


def test_guidance_zero_is_plain_conditional_to_the_bit(model: tuple[torch.nn.Module, torch.Tensor]) -> None:
    network, tokens = model
    denoise, noise = denoiser(network, tokens), keyed_noise([1, 2, 3], (3, 16, 16))

    def conditional_only(z: torch.Tensor, log_snr_B: torch.Tensor, conditional: bool) -> torch.Tensor:
        assert conditional
        return denoise(z, log_snr_B, True)

    plain = sample(conditional_only, noise, schedule=SCHEDULE, steps=4)
    assert torch.equal(sample(denoise, noise, schedule=SCHEDULE, steps=4, guidance=0.0), plain)
    assert not torch.equal(sample(denoise, noise, schedule=SCHEDULE, steps=4, guidance=0.5), plain)


def test_guidance_combines_before_the_clip(model: tuple[torch.nn.Module, torch.Tensor]) -> None:
    noise = keyed_noise([4], (3, 4, 4))

    def denoise(z: torch.Tensor, log_snr_B: torch.Tensor, conditional: bool) -> torch.Tensor:
        return torch.full_like(z, 3.0 if conditional else 2.0)

    alpha, sigma = alpha_sigma(SCHEDULE.log_snr(torch.tensor([1.0])))
    found = sample(denoise, noise, schedule=SCHEDULE, steps=1, guidance=0.5)
    assert torch.equal(found, (alpha.float() * noise(0) - sigma.float() * (1.5 * 3 - 0.5 * 2)).clamp(-1, 1))


def test_the_last_step_returns_the_clipped_prediction_without_noise() -> None:
    steps, asked = 2, []

    def noise(step: int) -> torch.Tensor:
        asked.append(step)
        return keyed_noise([9], (3, 4, 4))(step)

    def denoise(z: torch.Tensor, log_snr_B: torch.Tensor, conditional: bool) -> torch.Tensor:
        alpha, sigma = (value.float() for value in alpha_sigma(log_snr_B))
        return (alpha * z - 0.3 - z * 0) / sigma if log_snr_B[0] < SCHEDULE.log_snr(torch.tensor(0.75)) else (alpha * z - 5.0) / sigma

    assert torch.equal(sample(denoise, noise, schedule=SCHEDULE, steps=steps), torch.ones(1, 3, 4, 4))
    assert asked == [0, 2]  # the start, and the step from 2/2 to 1/2; none for the last


def test_a_sample_depends_on_its_seed_and_condition_not_on_its_batch(model: tuple[torch.nn.Module, torch.Tensor]) -> None:
    network, tokens = model
    together = sample(denoiser(network, tokens), keyed_noise([1, 2, 3], (3, 16, 16)), schedule=SCHEDULE, steps=4, guidance=0.5)
    alone = sample(denoiser(network, tokens[1:2]), keyed_noise([2], (3, 16, 16)), schedule=SCHEDULE, steps=4, guidance=0.5)
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=1e-5)


def test_noise_is_standard_normal_and_new_each_step() -> None:
    noise = keyed_noise(range(8), (3, 64, 64))
    first, second = noise(1), noise(2)
    assert first.dtype == torch.float32
    assert abs(first.mean().item()) < 0.02
    assert abs(first.std().item() - 1) < 0.02
    assert abs((first * second).mean().item()) < 0.02
    assert torch.equal(noise(1), first)


def test_pixels_are_rounded_then_clipped() -> None:
    x = torch.tensor([-1.2, -1.0, 0.0, 0.5, 1.0, 1.3]).view(1, 1, 1, 6).expand(1, 3, 1, 6)
    assert to_uint8(x)[0, 0, :, 0].tolist() == [0, 0, 128, 191, 255, 255]
    assert to_uint8(x).dtype == np.uint8
