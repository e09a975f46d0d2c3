"""The subcommand train: flags to a TrainConfig, errors to one sentence and an exit code."""

import errno
import json
import os
import sys
from collections.abc import Sequence

import tyro

from train.config import TrainConfig

EXIT_SETTING, EXIT_INPUT, EXIT_OUTPUT, EXIT_DIVERGED = 2, 3, 4, 6


def main(command: str, argv: Sequence[str]) -> int:
    """Trains; returns 0, or 2 for a setting, 3 for data and 4 for an output that cannot be used, 6 for a loss that is no number."""
    try:
        config = parse(command, argv)
    except ValueError as error:
        return _fail(error, EXIT_SETTING)
    # torch is imported behind the flags, so that --help and a wrong flag answer at once.
    from train.groups import DataError
    from train.loop import DivergedError, train
    from train.plan import plan

    try:
        if config.dry_run:
            print(json.dumps(plan(config, int(os.environ.get("WORLD_SIZE", "1"))), indent=1, ensure_ascii=False))
            return 0
        images = train(config, lambda line: print(line, file=sys.stderr, flush=True))
    except DivergedError as error:
        return _fail(error, EXIT_DIVERGED)
    except DataError as error:
        return _fail(error, EXIT_INPUT)
    except ValueError as error:
        return _fail(error, EXIT_SETTING)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST):
            raise
        return _fail(
            f"{error.filename or config.output}: {error.strerror}; the same command goes on from the newest checkpoint", EXIT_OUTPUT
        )
    if os.environ.get("RANK", "0") == "0":
        print(f"{images} images seen; `pagepairs sample --checkpoint {config.output}` draws from it", file=sys.stderr)
    return 0


def _fail(error: object, code: int) -> int:
    print(f"pagepairs: {error}", file=sys.stderr)
    return code


def parse(command: str, argv: Sequence[str]) -> TrainConfig:
    """Turns flags into a configuration.

    Raises:
      ValueError: for a value out of range, or no --data or --output.
      SystemExit: for --help, an unknown flag or a value of the wrong type.
    """
    config = tyro.cli(TrainConfig, prog=f"pagepairs {command}", args=list(argv), config=(tyro.conf.FlagCreatePairsOff,))
    if not config.dry_run and not config.data:
        raise ValueError("--data is missing: name the shards/ folder of a run, or with --mode label a folder of class folders")
    if not config.dry_run and not config.output:
        raise ValueError("--output is missing: name the folder that the run writes to")
    return config
