"""Runs that are killed: a command in a process of its own, which a server with all imports done forks in milliseconds."""

import multiprocessing
import random
import time
from collections.abc import Sequence
from multiprocessing.context import ForkServerProcess

import pipeline.jobs
from pagepairs.cli import main

_SERVER = multiprocessing.get_context("forkserver")


def run_command(args: Sequence[str], part_rows: int) -> None:
    """Runs a pagepairs command: what the process does."""
    pipeline.jobs.PART_ROWS = part_rows
    raise SystemExit(main(list(args)))


def start(args: Sequence[object], *, part_rows: int) -> ForkServerProcess:
    """Starts a command; parts of shuffles hold `part_rows` rows, so that a small crawl has several."""
    _SERVER.set_forkserver_preload(["killed_runs", "pipeline.commands", "pipeline.run", "pipeline.report"])
    process = _SERVER.Process(target=run_command, args=([str(arg) for arg in args], part_rows))
    process.start()
    return process


def kill_after(args: Sequence[object], seconds: float, *, part_rows: int) -> bool:
    """Starts a command and kills it; returns False if it had ended before."""
    process = start(args, part_rows=part_rows)
    process.join(seconds)
    alive = process.exitcode is None
    process.kill()
    process.join()
    process.close()
    return alive


def moments(count: int, seconds: float, seed: int) -> list[float]:
    """Returns `count` random moments of a run, one in each of as many equal stretches of it."""
    rng = random.Random(seed)
    return [(index + rng.random()) * seconds / count for index in range(count)]


def time_one_go(args: Sequence[object], *, part_rows: int) -> float:
    """Runs a command to its end and returns the seconds that took."""
    started = time.monotonic()
    process = start(args, part_rows=part_rows)
    process.join()
    assert process.exitcode == 0
    process.close()
    return time.monotonic() - started
