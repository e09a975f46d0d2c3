"""Runs that are killed: a command in a process of its own, which a server with all imports done forks in milliseconds."""

import multiprocessing
import os
import random
import time
from collections.abc import Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pipeline.jobs
from pagepairs.cli import main

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    ["killed_runs", "limited_runs", "pipeline.commands", "pipeline.run", "pipeline.report", "pipeline.embed_stage"]
)
_POLL_S = 0.003


def run_command(args: Sequence[str], part_rows: int) -> None:
    """Runs a pagepairs command: what the process does."""
    pipeline.jobs.PART_ROWS = part_rows
    raise SystemExit(main(list(args)))


def start(args: Sequence[object], *, part_rows: int) -> ForkServerProcess:
    """Starts a command; parts of shuffles hold `part_rows` rows, so that a small crawl has several."""
    process = SERVER.Process(target=run_command, args=([str(arg) for arg in args], part_rows))
    process.start()
    return process


def kill_after(
    args: Sequence[object], output: Path, *, files: int | None, delay_s: float = 0.0, part_rows: int, sign: str = "\0"
) -> tuple[int, int | None]:
    """Starts a command and kills it `delay_s` after so many files, or one with `sign` in its path, were seen there; None lets it end.

    A number of files is the same progress on a slow machine and on a fast one.

    Returns:
      How many files were seen, and the exit code: negative where it was killed.
    """
    process, seen = start(args, part_rows=part_rows), set[str]()
    while process.exitcode is None and (files is None or (len(seen) < files and not any(sign in path for path in seen))):
        seen.update(os.path.join(folder, name) for folder, _, names in os.walk(output) for name in names if not name.startswith(".tmp-"))
        time.sleep(_POLL_S)
    if files is not None:
        process.join(delay_s)
        process.kill()
    process.join()
    code = process.exitcode
    process.close()
    return len(seen), code


def moments(count: int, files: int, seed: int) -> list[tuple[int, float]]:
    """Returns `count` random moments of a run that makes `files` files: one in each of as many equal stretches, and up to 0.1 s more."""
    rng = random.Random(seed)
    return [(int((index + rng.random()) * files / count), rng.uniform(0, 0.1)) for index in range(count)]
