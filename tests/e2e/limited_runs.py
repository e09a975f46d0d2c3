"""Runs in processes of their own that lose a right or room: permissions bind them even where they are root's."""

import ctypes
import os
import resource
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from killed_runs import SERVER

import pipeline.journal
from pagepairs.cli import main

_CAPABILITIES = 0x20080522  # version of the structures below
_OVERRIDE = 0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: to pass over the modes of files


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What befalls a run."""

    max_file_bytes: int = -1
    lose: tuple[str, int] = ("", 0)
    """A folder and the mode that it and all in it get..."""
    after: int = 0
    """...when so many tasks are finished."""


def _run(args: Sequence[str], limits: Limits, errors: str) -> None:
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), 2)
    if limits.max_file_bytes >= 0:  # Python ignores the signal, so that a write that is too long is an error
        resource.setrlimit(resource.RLIMIT_FSIZE, (limits.max_file_bytes, limits.max_file_bytes))
    if limits.after:
        _heed_modes()
        pipeline.journal.Journal.write = _losing(pipeline.journal.Journal.write, limits)  # type: ignore[method-assign]
    raise SystemExit(main(list(args)))


def _heed_modes() -> None:
    """Gives up, for this process, root's power over permissions; other users have none."""
    header, sets = (ctypes.c_uint32 * 2)(_CAPABILITIES, 0), (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice
    libc = ctypes.CDLL(None, use_errno=True)
    libc.capget(header, sets)
    for index in range(3):
        sets[index] &= ~_OVERRIDE
    if libc.capset(header, sets):
        raise OSError(ctypes.get_errno(), "capset")


def _losing(write: Callable[..., None], limits: Limits) -> Callable[..., None]:
    tasks = []

    def noted(*args: object) -> None:
        write(*args)
        tasks.append(args)
        if len(tasks) == limits.after:
            set_modes(Path(limits.lose[0]), limits.lose[1])

    return noted


def set_modes(folder: Path, mode: int) -> None:
    """Gives a folder and all folders and files in it a mode; files without the right to execute."""
    for top, folders, names in os.walk(folder, topdown=False):
        for name in names:
            os.chmod(os.path.join(top, name), mode & 0o666)
        for name in folders:
            os.chmod(os.path.join(top, name), mode)
    os.chmod(folder, mode)


def call_limited(args: Sequence[object], limits: Limits, errors: Path) -> tuple[int | None, str]:
    """Runs a command to its end; returns its exit code and what it said."""
    process = SERVER.Process(target=_run, args=([str(arg) for arg in args], limits, str(errors)))
    process.start()
    process.join()
    code = process.exitcode
    process.close()
    return code, errors.read_text()
