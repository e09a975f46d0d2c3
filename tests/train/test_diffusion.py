"""The schedule, the conversions, the loss and the step back, against values computed with 50 digits."""

import math

import numpy as np
import pytest
import torch

from train.diffusion import Schedule, add_noise, alpha_sigma, eps_from_v, loss_per_image, posterior_step, v_of, x_from_v

SCHEDULE = Schedule(image_px=256)
SCHEDULE_VALUES = [  # t, λ, α, σ
    (0.0, 10.841116916640, 0.999990211269, 0.004424631649),
    (0.25, -2.397699835623, 0.288700993724, 0.957419310554),
    (0.5, -4.158883083360, 0.124034734589, 0.992277876714),
    (0.75, -5.920066331095, 0.051747773213, 0.998660186434),
    (1.0, -19.158883083360, 6.91355461e-05, 0.999999997610),
]
STEP_VALUES = [  # t, s, std at f = 0, 0.2, 0.8, 1, weight of z, weight of x̂
    (0.5, 0.25, 0.871282392, 0.877536446, 0.896569247, 0.903004810, 0.399974948, 0.239090207),
    (0.75, 0.5, 0.903004810, 0.904163454, 0.907648314, 0.908812917, 0.411888332, 0.102720431),
    (2 / 256, 1 / 256, 0.045563460, 0.051859248, 0.076463607, 0.087029061, 0.273057337, 0.726939949),
    (1.0, 255 / 256, 0.996571004, 0.996571073, 0.996571280, 0.996571350, 0.082737753, 0.000829878),
]


def log_snr(t: float, schedule: Schedule = SCHEDULE) -> torch.Tensor:
    return schedule.log_snr(torch.tensor([t], dtype=torch.float64))


@pytest.mark.parametrize(("t", "expected", "alpha", "sigma"), SCHEDULE_VALUES)
def test_the_schedule_has_its_published_values(t: float, expected: float, alpha: float, sigma: float) -> None:
    found = log_snr(t)
    assert found.dtype == torch.float64
    for value, wanted in zip((found, *alpha_sigma(found)), (expected, alpha, sigma), strict=True):
        assert abs(value.item() - wanted) < 1e-9
    for value, wanted in zip(alpha_sigma(found.float()), (alpha, sigma), strict=True):
        assert value.dtype == torch.float32
        assert abs(value.item() - wanted) < 1e-5


def test_limits_are_applied_before_the_shift() -> None:
    ends = [log_snr(t, Schedule(image_px=512)).item() for t in (0.0, 1.0)]
    assert ends == pytest.approx([15 - 4 * math.log(4), -15 - 4 * math.log(4)], abs=1e-9)
    assert log_snr(0.5, Schedule(image_px=32)).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("t", "s", "lower", "fifth", "four_fifths", "upper", "z_weight", "x_weight"), STEP_VALUES)
def test_a_step_has_its_published_values(
    t: float, s: float, lower: float, fifth: float, four_fifths: float, upper: float, z_weight: float, x_weight: float
) -> None:
    ends = log_snr(t).item(), log_snr(s).item()
    for interpolation, std in ((0.0, lower), (0.2, fifth), (0.8, four_fifths), (1.0, upper)):
        step = posterior_step(*ends, interpolation)
        assert [step.std, step.z_weight, step.x_weight] == pytest.approx([std, z_weight, x_weight], abs=1e-9)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
@pytest.mark.parametrize("t", [0.25, 0.5, 0.75])
def test_v_x_and_eps_convert_into_each_other(t: float, dtype: torch.dtype, bound: float) -> None:
    generator = torch.Generator().manual_seed(1)
    x, eps = (torch.randn(4, 3, 5, 5, generator=generator, dtype=dtype) for _ in range(2))
    log_snr_B = log_snr(t).expand(4)
    z, v = add_noise(x, eps, log_snr_B), v_of(x, eps, log_snr_B)
    assert z.dtype == v.dtype == dtype
    assert (x_from_v(z, v, log_snr_B) - x).abs().max() < bound
    assert (eps_from_v(z, v, log_snr_B) - eps).abs().max() < bound
    alpha, sigma = next((alpha, sigma) for at, _, alpha, sigma in SCHEDULE_VALUES if at == t)
    assert (z - (alpha * x + sigma * eps)).abs().max() < bound
    assert (v - (alpha * eps - sigma * x)).abs().max() < bound


def test_the_loss_is_the_error_of_eps() -> None:
    generator = torch.Generator().manual_seed(2)
    x, eps, v_hat = (torch.randn(6, 3, 4, 4, generator=generator, dtype=torch.float64) for _ in range(3))
    log_snr_B = SCHEDULE.log_snr(torch.linspace(0.01, 0.9, 6, dtype=torch.float64))
    alpha_B, _ = alpha_sigma(log_snr_B)
    error_of_v = (v_hat - v_of(x, eps, log_snr_B)).square().mean((1, 2, 3))
    found = loss_per_image(v_hat, add_noise(x, eps, log_snr_B), eps, log_snr_B)
    torch.testing.assert_close(found, alpha_B**2 * error_of_v, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("image_px", "expected"), [(256, 0.0737739), (512, 0.0377367), (32, 0.4061839)])
def test_a_network_of_zeros_has_the_published_loss(image_px: int, expected: float) -> None:
    # Gauss-Legendre over t, images and noise of the exact moments 0.25 and 1: one pixel pair ±0.5, ±1 in all combinations.
    nodes, weights = np.polynomial.legendre.leggauss(400)
    log_snr_B = Schedule(image_px=image_px).log_snr(torch.from_numpy((nodes + 1) / 2))
    x = torch.tensor([0.5, 0.5, -0.5, -0.5], dtype=torch.float64).expand(400, 4)
    eps = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64).expand(400, 4)
    losses = loss_per_image(torch.zeros_like(x), add_noise(x, eps, log_snr_B), eps, log_snr_B)
    assert float((losses * torch.from_numpy(weights / 2)).sum()) == pytest.approx(expected, abs=1e-7)
