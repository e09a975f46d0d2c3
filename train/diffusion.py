"""The diffusion process: noise schedule, conversions between x, v and ε, the loss, and one step back.

B = batch, C = colour channels, H, W = pixels. λ (log_snr) is the log of the signal-to-noise ratio, α² = sigmoid(λ), σ² = sigmoid(-λ),
z = αx + σε and v = αε - σx. Images lie in [-1, 1]. Formulas are those of simple diffusion (arXiv 2301.11093) as Semantica
(arXiv 2405.14857) uses them. Schedule and coefficients are float64 on the CPU; z, target and loss are float32.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_LIMIT = 15.0  # λ of an image of noise_px lies in ±_LIMIT; larger images are shifted after that, so the range moves with them


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The cosine schedule, shifted for the size of the image."""

    image_px: int
    """Side of the image that is noised, also where the network works on patches of it."""
    noise_px: int = 32
    """Side at which the cosine schedule is not shifted."""

    def log_snr(self, t: Tensor) -> Tensor:
        """Returns λ at t in [0, 1], float64: 0 is (nearly) the image, 1 (nearly) noise."""
        low, high = math.atan(math.exp(-_LIMIT / 2)), math.atan(math.exp(_LIMIT / 2))
        return -2 * torch.log(torch.tan(low + t.double() * (high - low))) + 2 * math.log(self.noise_px / self.image_px)


def alpha_sigma(log_snr: Tensor) -> tuple[Tensor, Tensor]:
    """Returns α and σ in the type of λ."""
    return torch.sqrt(torch.sigmoid(log_snr)), torch.sqrt(torch.sigmoid(-log_snr))


def _coefficients(log_snr_B: Tensor, like_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """α and σ of each image, computed in float64, shaped and typed to multiply `like_BCHW`."""
    alpha_B, sigma_B = alpha_sigma(log_snr_B.double())
    shape = (-1, *[1] * (like_BCHW.ndim - 1))
    return alpha_B.to(like_BCHW.dtype).view(shape), sigma_B.to(like_BCHW.dtype).view(shape)


def add_noise(x_BCHW: Tensor, eps_BCHW: Tensor, log_snr_B: Tensor) -> Tensor:
    """Returns z = αx + σε."""
    alpha, sigma = _coefficients(log_snr_B, x_BCHW)
    return alpha * x_BCHW + sigma * eps_BCHW


def v_of(x_BCHW: Tensor, eps_BCHW: Tensor, log_snr_B: Tensor) -> Tensor:
    """Returns v = αε - σx."""
    alpha, sigma = _coefficients(log_snr_B, x_BCHW)
    return alpha * eps_BCHW - sigma * x_BCHW


def x_from_v(z_BCHW: Tensor, v_BCHW: Tensor, log_snr_B: Tensor) -> Tensor:
    """Returns x = αz - σv."""
    alpha, sigma = _coefficients(log_snr_B, z_BCHW)
    return alpha * z_BCHW - sigma * v_BCHW


def eps_from_v(z_BCHW: Tensor, v_BCHW: Tensor, log_snr_B: Tensor) -> Tensor:
    """Returns ε = σz + αv."""
    alpha, sigma = _coefficients(log_snr_B, z_BCHW)
    return sigma * z_BCHW + alpha * v_BCHW


def loss_per_image(v_hat_BCHW: Tensor, z_BCHW: Tensor, eps_BCHW: Tensor, log_snr_B: Tensor) -> Tensor:
    """Returns the mean squared error of ε of each image, shape (B,); the loss is its mean. It equals α² times the error of v."""
    error_BCHW = eps_from_v(z_BCHW, v_hat_BCHW.to(z_BCHW.dtype), log_snr_B) - eps_BCHW
    return error_BCHW.square().flatten(1).mean(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step from t back to s < t: z_s = z_weight · z_t + x_weight · x̂ + std · noise."""

    z_weight: float
    x_weight: float
    std: float


def posterior_step(log_snr_t: float, log_snr_s: float, interpolation: float) -> Step:
    """Returns the coefficients of the step from λ_t up to λ_s.

    Args:
      log_snr_t: λ at t.
      log_snr_s: λ at s < t, so it is larger.
      interpolation: f in [0, 1]; log var = f·log upper + (1-f)·log lower. The lower variance is that of the true posterior, the upper
        that of the forward step. Semantica's sentence can be read as 0.2 or as 0.8.
    """
    ratio = math.exp(log_snr_t - log_snr_s)
    rest = -math.expm1(log_snr_t - log_snr_s)  # 1 - ratio; by subtraction it loses digits where steps are many
    alpha_t, alpha_s = math.sqrt(_sigmoid(log_snr_t)), math.sqrt(_sigmoid(log_snr_s))
    log_lower, log_upper = math.log(rest * _sigmoid(-log_snr_s)), math.log(rest * _sigmoid(-log_snr_t))
    log_variance = interpolation * log_upper + (1 - interpolation) * log_lower
    return Step(z_weight=ratio * alpha_s / alpha_t, x_weight=rest * alpha_s, std=math.exp(log_variance / 2))


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))
