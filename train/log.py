"""What a run writes about itself: log.jsonl, TensorBoard events, a progress bar."""

import json
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Never

import torch
from tqdm import tqdm

from pagepairs.files import write_bytes

BINS = 8
"""Of log SNR, equal parts of [-20, 12], which holds the range of all presets."""
_LOW, _HIGH = -20.0, 12.0
# Dense bfloat16 peaks as the makers state them, in TFLOP/s.
_PEAKS = {"H200": 989.0, "H100": 989.0, "A100": 312.0, "L40S": 362.0, "4090": 165.0}


def peak_tflops(device: torch.device, given: float) -> float:
    """Returns the peak that utilisation is counted against; 0 where it is neither given nor known."""
    if given or device.type == "cpu":
        return given
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in _PEAKS.items() if part in name), 0.0)


def bin_of(log_snr_B: torch.Tensor) -> torch.Tensor:
    """Returns the bin of each λ, int64."""
    return ((log_snr_B.double() - _LOW) / (_HIGH - _LOW) * BINS).long().clamp(0, BINS - 1)


def memory_mib(device: torch.device) -> float:
    """Returns the largest memory in use so far: of the GPU, or of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Silent:
    """The log of all processes but the first."""

    def write(self, images: int, values: dict[str, Any]) -> None:
        """Writes nothing."""

    def say(self, line: str) -> None:
        """Prints nothing."""

    def close(self) -> None:
        """Has nothing to close."""


class Log(Silent):
    """Writes one line a logged step and moves the progress bar."""

    def __init__(self, run: str, *, images_seen: int, total_images: int) -> None:
        """Goes on where the checkpoint left off: what a killed run logged after it is taken back."""
        self._path = os.path.join(run, "log.jsonl")
        lines = _lines_until(self._path, images_seen)
        write_bytes(self._path, b"".join(lines))
        self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115 (closed by close)
        self._events = _event_writer(os.path.join(run, "tensorboard"), images_seen)
        self._bar: tqdm[Never] = tqdm(
            file=sys.stderr, total=total_images, initial=images_seen, unit=" images", unit_scale=True, dynamic_ncols=True, smoothing=0.1
        )

    def write(self, images: int, values: dict[str, Any]) -> None:
        """Writes a line; numbers go to TensorBoard too, except the lists of bins."""
        line = {"images": images, **values}
        self._file.write((json.dumps(line) + "\n").encode())
        for name, value in values.items():
            if isinstance(value, float | int):
                self._events.add_scalar(name, value, images)
            elif isinstance(value, list):
                for place, entry in enumerate(value):
                    if entry is not None:
                        self._events.add_scalar(f"{name}/{place}", entry, images)
        self._bar.set_postfix_str(f"loss {values['loss']:.4f}, data wait {values['data_wait']:.1%}", refresh=False)
        self._bar.update(images - self._bar.n)

    def say(self, line: str) -> None:
        """Prints a line above the progress bar."""
        self._bar.write(line, file=sys.stderr)

    def close(self) -> None:
        """Closes the files."""
        self._bar.close()
        self._events.close()
        self._file.close()


@contextmanager
def open_log(run: str, images_seen: int, total_images: int, first: bool) -> Iterator[Silent]:
    """Opens the log of a run, in the first process."""
    log = Log(run, images_seen=images_seen, total_images=total_images) if first else Silent()
    try:
        yield log
    finally:
        log.close()


def _event_writer(folder: str, images_seen: int) -> Any:
    # Where TensorFlow is installed, TensorBoard would import it for its file system: seconds, and it cannot share a process with Triton.
    sys.modules.setdefault("tensorboard.compat.notf", ModuleType("notf"))
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(folder, purge_step=images_seen + 1)


def _lines_until(path: str, images: int) -> list[bytes]:
    if not os.path.exists(path):
        return []
    with open(path, "rb") as file:
        lines = [line for line in file if line.endswith(b"\n")]
    return [line for line in lines if json.loads(line)["images"] <= images]
