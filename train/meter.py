"""What a run measures about itself between two lines of the log."""

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from train.log import BINS, bin_of, memory_mib
from train.size import TRAINING


@dataclass(frozen=True, kw_only=True)
class StepSums:
    """Of one step, over all processes."""

    loss: float
    """Mean over the images."""
    loss_sum_K: list[float]
    """By bin of log SNR."""
    count_K: list[float]
    stop: bool
    """Whether any process was asked to stop."""


class Sums:
    """Gathers a step's losses on the device, without waiting for it."""

    def __init__(self, device: torch.device) -> None:
        self.values = torch.zeros(1 + 2 * BINS, dtype=torch.float64, device=device)

    def add(self, loss_B: Tensor, log_snr_B: Tensor) -> None:
        """Adds a micro-batch."""
        place_B = bin_of(log_snr_B).to(self.values.device)
        loss_B = loss_B.detach().double()
        self.values[1 : 1 + BINS].index_add_(0, place_B, loss_B)
        self.values[1 + BINS :].index_add_(0, place_B, torch.ones_like(loss_B))

    def finish(self) -> StepSums:
        """Returns the sums; the values may have been summed over processes before."""
        values = self.values.tolist()
        loss_sum_K, count_K = values[1 : 1 + BINS], values[1 + BINS :]
        return StepSums(loss=sum(loss_sum_K) / sum(count_K), loss_sum_K=loss_sum_K, count_K=count_K, stop=values[0] > 0)


class Meter:
    """Rates and means since the last line."""

    def __init__(self, *, device: torch.device, processes: int, forward_flop: int, peak_tflops: float, every_images: int) -> None:
        self._device, self._processes, self._flop, self._peak = device, processes, forward_flop * TRAINING, peak_tflops
        self._every = every_images
        self._clear()

    def _clear(self) -> None:
        self._start, self._wait_s, self._images = time.perf_counter(), 0.0, 0
        self._loss_sum_K, self._count_K = [0.0] * BINS, [0.0] * BINS

    def waited(self, seconds: float) -> None:
        """Counts time in which the network had no data."""
        self._wait_s += seconds

    def pause(self, seconds: float) -> None:
        """Leaves time out: of checkpoints and grids."""
        self._start += seconds

    def add(self, sums: StepSums, images: int) -> bool:
        """Counts a step; returns whether a line is due."""
        self._images += images
        self._loss_sum_K = [a + b for a, b in zip(self._loss_sum_K, sums.loss_sum_K, strict=True)]
        self._count_K = [a + b for a, b in zip(self._count_K, sums.count_K, strict=True)]
        return self._images >= self._every

    def line(self, gradient_norm: float, lr: float, skipped: int) -> dict[str, Any]:
        """Returns what the log says of the time since the last line, and begins anew."""
        seconds = time.perf_counter() - self._start
        rate = self._images / seconds
        tflops = rate * self._flop / self._processes / 1e12
        line = {
            "loss": sum(self._loss_sum_K) / sum(self._count_K),
            "loss_by_log_snr": [total / count if count else None for total, count in zip(self._loss_sum_K, self._count_K, strict=True)],
            "gradient_norm": gradient_norm,
            "lr": lr,
            "images_per_s": rate,
            "tflops": tflops,
            "mfu": tflops / self._peak if self._peak else None,
            "peak_tflops": self._peak or None,
            "data_wait": self._wait_s / seconds,
            "memory_mib": memory_mib(self._device),
            "skipped": skipped,
        }
        self._clear()
        return line
