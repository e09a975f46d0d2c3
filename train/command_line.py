"""Flags to a frozen dataclass, and errors to one sentence and an exit code, for the commands of this package."""

import errno
import os
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

import tyro

from train.image_files import InputError

EXIT_SETTING, EXIT_INPUT, EXIT_OUTPUT = 2, 3, 4
_OUTPUT_ERRORS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EFBIG,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.EISDIR,
)

Config = TypeVar("Config")


def run_command(command: str, argv: Sequence[str], config_type: Callable[[], Config], run: Callable[[Config], None]) -> int:
    """Runs a command; returns 0, or 2 for a setting, 3 for an input, 4 for an output that cannot be used, 130 when interrupted.

    Args:
      command: its name, for the help.
      argv: its flags.
      config_type: the dataclass that the flags fill.
      run: does the work.

    Raises:
      SystemExit: for --help, or a value of the wrong type.
    """
    config = None
    try:
        config = tyro.cli(config_type, prog=f"pagepairs {command}", args=list(argv), config=(tyro.conf.FlagCreatePairsOff,))
        run(config)
    except InputError as error:
        return _fail(str(error), EXIT_INPUT)
    except ValueError as error:
        return _fail(str(error), EXIT_SETTING)
    except OSError as error:
        path = os.path.abspath(os.fsdecode(error.filename)) if error.filename else ""
        output = os.path.abspath(getattr(config, "output", ""))
        if error.errno in _OUTPUT_ERRORS and path and os.path.commonpath([path, output]) in (path, output):
            return _fail(f"--output {output}: {error.strerror}; finished files are whole, the same command goes on from them", EXIT_OUTPUT)
        return _fail(f"{path}: {error.strerror}" if path else str(error), EXIT_INPUT)
    except KeyboardInterrupt:
        return _fail("interrupted; finished files are whole, the same command goes on from them", 130)
    return 0


def _fail(sentence: str, code: int) -> int:
    print(f"pagepairs: {sentence}", file=sys.stderr)
    return code
