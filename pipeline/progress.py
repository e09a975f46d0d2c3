"""Progress over processes: each worker keeps its count in a small file, the driver sums them into a bar or log lines."""

import glob
import os
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tqdm import tqdm

_INTERVAL_S = 0.5
_LOG_INTERVAL_S = 10.0
_lock = threading.Lock()
_counts: dict[str, tuple[str, float, float]] = {}  # folder -> (this process's file, count, when last written)


@dataclass(frozen=True, slots=True)
class Meter:
    """Counts work from any process of this machine; `folder` is where the counts lie."""

    folder: str

    def add(self, amount: float) -> None:
        """Adds to this process's count; cheap enough for every image."""
        with _lock:
            path, count, written = _counts.get(self.folder) or (os.path.join(self.folder, uuid.uuid4().hex), 0.0, 0.0)
            count += amount
            if time.monotonic() - written > _INTERVAL_S and os.path.isdir(self.folder):
                with open(path, "w", encoding="ascii") as file:
                    file.write(repr(count))
                written = time.monotonic()
            _counts[self.folder] = (path, count, written)

    def total(self) -> float:
        """Sum over all processes; of this one as of now, of the others as last written."""
        own, here, _ = _counts.get(self.folder, ("", 0.0, 0.0))
        others = [path for path in glob.glob(os.path.join(self.folder, "*")) if path != own]
        return here + sum(_read_count(path) for path in others)


def _read_count(path: str) -> float:
    try:
        with open(path, encoding="ascii") as file:
            return float(file.read() or 0)
    except (OSError, ValueError):  # being rewritten at this moment
        return 0.0


@contextmanager
def watch(folder: str, label: str, total: float, unit: str) -> Iterator[Meter]:
    """Shows a bar on a terminal, else a line every ten seconds, while the block runs."""
    meter = Meter(os.path.join(folder, uuid.uuid4().hex))
    os.makedirs(meter.folder)
    terminal = sys.stderr.isatty()
    bar = tqdm(total=total, desc=f"{label:<7}", unit=unit, unit_scale=True, disable=not terminal, dynamic_ncols=True)
    stop = threading.Event()
    thread = threading.Thread(target=_show, args=(meter, bar, stop, label, total, unit), daemon=True)
    thread.start()
    try:
        yield meter
        bar.update(max(0.0, total - bar.n))
    finally:
        stop.set()
        thread.join()
        bar.close()
        _forget(meter)


def _show(meter: Meter, bar: "tqdm[None]", stop: threading.Event, label: str, total: float, unit: str) -> None:
    started = logged = time.monotonic()
    while not stop.wait(_INTERVAL_S):
        count = min(meter.total(), total)
        bar.update(count - bar.n)
        if bar.disable and time.monotonic() - logged >= _LOG_INTERVAL_S:
            logged = time.monotonic()
            rate = count / (logged - started)
            left = f", {(total - count) / rate:,.0f} s left" if rate else ""
            print(f"{label}: {count:,.0f} of {total:,.0f} {unit}, {rate:,.1f} {unit}/s{left}", file=sys.stderr, flush=True)


def _forget(meter: Meter) -> None:
    with _lock:
        _counts.pop(meter.folder, None)
    for path in glob.glob(os.path.join(meter.folder, "*")):
        os.unlink(path)
    os.rmdir(meter.folder)
