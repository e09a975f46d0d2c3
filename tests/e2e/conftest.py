"""The command line as tests call it, and runs that several tests look at."""

import io
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from pagepairs.cli import main

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


Call = Callable[..., Done]


def call(*args: object) -> Done:
    """Runs a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = main([str(arg) for arg in args])
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
    return Done(code=code, out=out.getvalue(), err=err.getvalue())


@pytest.fixture(scope="session")
def pagepairs() -> Call:
    """Runs a pagepairs command in this process: imports cost seconds, and most tests need none of their own."""
    return call


@pytest.fixture(scope="session")
def shell() -> Call:
    """Runs a pagepairs command in a process of its own; keyword arguments are environment variables."""

    def run(*args: object, **environment: str) -> Done:
        command = [sys.executable, "-m", "pagepairs.cli", *(str(arg) for arg in args)]
        env = os.environ | {"PYTHONPATH": str(ROOT)} | environment
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=300, env=env)
        return Done(code=done.returncode, out=done.stdout, err=done.stderr)

    return run


@pytest.fixture(scope="session")
def site_files(site: Path) -> list[Path]:
    """The archives of the small site."""
    return sorted(site.iterdir())


@pytest.fixture(scope="session")
def howtocook_run(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run over the real crawl."""
    output = tmp_path_factory.mktemp("howtocook") / "out"
    done = call("run", "--input", shared_data / "howtocook.warc.gz", "--output", output, "--encoder", "builtin")
    assert done.code == 0, done.err
    return output
