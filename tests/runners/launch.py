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


def start(*args: object, **more: str) -> "subprocess.Popen[str]":
    """Starts a pagepairs command; keyword arguments are environment variables."""
    command = [sys.executable, "-m", "pagepairs.cli", *map(str, args)]
    return subprocess.Popen(command, env=environment(**more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def call(*args: object, **more: str) -> Done:
    """Runs a pagepairs command to its end."""
    with start(*args, **more) as process:
        out, err = process.communicate(timeout=LIMIT_S)
    return Done(code=process.returncode, out=out, err=err)
