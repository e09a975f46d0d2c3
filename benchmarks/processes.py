"""Measurements in processes of their own, in turn with what they are compared with."""

import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HELD: list[Any] = []
"""What a Beam handler made in a script uses of this process: Beam would pickle the script's own globals, networks and all."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one process used for its work, imports not counted."""

    wall_s: float
    cpu_s: float
    before_mib: float
    peak_mib: float


def conditions(repeats: int) -> str:
    """Returns the line that stands above the figures."""
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; medians of {repeats} (lowest-highest)"


def pin(cores: int) -> None:
    """Confines this process, its threads and its children to so many cores."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])


def resident_mib(name: str) -> float:
    """Returns VmRSS (now) or VmHWM (peak) of this process; getrusage() would count the parent's peak too, until exec."""
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


@contextmanager
def measured() -> Iterator[None]:
    """Measures the block and prints the result for `in_turn`; processor time counts the children that were waited for."""
    before_mib = resident_mib("VmRSS")
    started, started_cpu = time.perf_counter(), _cpu_s()
    yield
    wall_s, cpu_s = time.perf_counter() - started, _cpu_s() - started_cpu
    print(json.dumps(asdict(Measured(wall_s=wall_s, cpu_s=cpu_s, before_mib=before_mib, peak_mib=resident_mib("VmHWM")))))


def _cpu_s() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def in_turn(script: str, sides: Iterable[str], arguments: list[str], repeats: int) -> dict[str, list[Measured]]:
    """Runs `script --side SIDE arguments` for every side, then all again: a busy moment of the machine hits every side."""
    runs: dict[str, list[Measured]] = {side: [] for side in sides}
    for _ in range(repeats):
        for side, results in runs.items():
            command = [sys.executable, script, "--side", side, *arguments]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            results.append(Measured(**json.loads(output.splitlines()[-1])))
    return runs


def median(runs: list[Measured], name: str) -> float:
    """Returns the median of one figure."""
    return float(statistics.median(getattr(run, name) for run in runs))


def ratio(above: list[Measured], below: list[Measured], name: str) -> str:
    """Returns the median of above / below over the turns, with the lowest and the highest."""
    ratios = [getattr(a, name) / getattr(b, name) for a, b in zip(above, below, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
