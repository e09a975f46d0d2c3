"""Commands in processes of their own, as users start them."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 600


@dataclass(frozen=True, kw_only=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


Call = Callable[..., Done]


def environment(**more: str) -> dict[str, str]:
    """Returns the environment of a command: this checkout, and this Python as `python`, which Beam's worker pool starts."""
    return os.environ | {"PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"} | more


SMALL_PARTS = "import sys, pipeline.jobs, pagepairs.cli; pipeline.jobs.PART_ROWS = 7; sys.exit(pagepairs.cli.main())"


def start(*args: object, small_parts: bool = False, **more: str) -> "subprocess.Popen[str]":
    """Starts a pagepairs command; keyword arguments are environment variables.

    Args:
      small_parts: 7 rows a part, so that the small site has several, as a large crawl has.
    """
    command = [sys.executable, *(["-c", SMALL_PARTS] if small_parts else ["-m", "pagepairs.cli"]), *map(str, args)]
    return subprocess.Popen(command, env=environment(**more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def call(*args: object, small_parts: bool = False, **more: str) -> Done:
    """Runs a pagepairs command to its end."""
    with start(*args, small_parts=small_parts, **more) as process:
        out, err = process.communicate(timeout=LIMIT_S)
    return Done(code=process.returncode, out=out, err=err)
