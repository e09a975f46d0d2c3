"""The subcommands run, scan, embed, pair, shard and report: flags to a Config, errors to one sentence and an exit code."""

import dataclasses
import difflib
import json
import logging
import os
import sys
import typing
from collections.abc import Iterator, Sequence
from typing import Any

import tyro

from pagepairs.config import Config, PairConfig, RunConfig
from pagepairs.files import read_json
from pagepairs.locks import OutputLocked
from pagepairs.stores import exists, is_remote
from pipeline.file_errors import EXIT_INPUT, EXIT_OUTPUT, file_error

EXIT_SETTING, EXIT_NO_PAIRS, EXIT_RUNNER = 2, 5, 6
# The groups of settings whose flags a subcommand takes; the others come from OUTPUT/config.json.
_GROUPS = {
    "run": ("scan", "embed", "pair", "shard", "run"),
    "scan": ("scan", "run"),
    "embed": ("embed", "run"),
    "pair": ("pair", "run"),
    "shard": ("shard", "run"),
    "report": ("report", "run"),
}
_BEAM_FILES = ("--setup_file", "--requirements_file", "--prism_location")
_EPILOG = (
    "Flags of Apache Beam (--runner, --project, --flink_master, ...) are passed on. --config FILE takes the settings of a config.json."
)


def main(command: str, argv: Sequence[str]) -> int:
    """Runs a subcommand; returns 0.

    Or 2 for a setting, 3 for an input, 4 for an output that cannot be used, 5 for no pairs, 6 for a runner that failed.
    """
    # Beam logs a worker's error with its traceback before it raises it, and warns of cloud clients that nobody asked for.
    logging.getLogger().setLevel(logging.CRITICAL)
    try:
        config = parse(command, argv)
    except ValueError as error:
        return fail(error, EXIT_SETTING)
    except Exception as error:  # OUTPUT/config.json may lie in a store
        found = file_error(error, Config(run=RunConfig(output=_take(argv, "--output")[1] or "")))
        if found is None:
            raise
        return fail(*found)
    from pipeline.run import STAGES, NothingFound, as_json, plan, run_stages
    from pipeline.runners import JobFailed
    from pipeline.stage import InputError

    stages = STAGES if command == "run" else (command,)
    try:
        if config.run.dry_run:
            print(json.dumps({"configuration": as_json(config), "plan": plan(config, stages)}, indent=1, ensure_ascii=False))
            return 0
        run_stages(config, stages, lambda line: print(line, file=sys.stderr, flush=True))
    except OutputLocked as error:
        return fail(error, EXIT_OUTPUT)
    except NothingFound as error:
        return fail(error, EXIT_NO_PAIRS)
    except InputError as error:
        return fail(error, EXIT_INPUT)
    except ValueError as error:
        return fail(error, EXIT_SETTING)
    except Exception as error:  # a store's client raises its own
        found = file_error(error, config)
        if found is None and isinstance(error, JobFailed):
            found = error.sentence, EXIT_RUNNER
        if found is None:
            raise
        return fail(*found)
    return 0


def fail(error: object, code: int) -> int:
    """Prints an error as one sentence and returns the exit code."""
    print(f"pagepairs: {error}", file=sys.stderr)
    return code


def parse(command: str, argv: Sequence[str]) -> Config:
    """Turns flags into a configuration.

    Settings that are not given come from --config, else (for a single stage) from OUTPUT/config.json, else from the defaults.

    Raises:
      ValueError: for a flag that neither pagepairs nor Beam knows, or for no --output.
      SystemExit: for --help, or a value of the wrong type.
    """
    for argument in argv:
        if argument.startswith(("--dry_run=", "--dry-run=")):
            plan = "it checks the run and prints its plan; Beam's own of that name would build jobs that leave nothing"
            raise ValueError(f"{argument}: --dry-run takes no value: {plan}")
    argv, file = _take(join_values(join_values(argv, "--input"), "--benchmark"), "--config")
    default = Config()
    if file is not None:
        default = _read_config(file)
    elif command != "run":
        _, output = _take(argv, "--output")
        path = os.path.join(output or "", "config.json")
        if output and exists(path):
            default = _read_config(path)
    default = dataclasses.replace(default, pair=_without_other_band(default.pair, argv))
    groups = _GROUPS[command]
    kinds = typing.get_type_hints(Config)
    flags = dataclasses.make_dataclass("Flags", [(name, kinds[name]) for name in groups], frozen=True)
    try:
        parsed, beam_args = tyro.cli(
            flags,
            prog=f"pagepairs {command}",
            description=f"{_EPILOG}",
            args=list(argv),
            default=flags(**{name: getattr(default, name) for name in groups}),
            return_unknown_args=True,
            config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff, tyro.conf.OmitSubcommandPrefixes),
        )
    except SystemExit as stop:
        if not stop.code and "embed" in groups:  # --help; the parser would join the lines of a table
            from encoders import encoder_list

            print(f"{encoder_list()}\nThe band is the similarities that are kept; where there is none, give --low and --high.")
        raise
    _check_beam_flags(beam_args, parsed)
    config = dataclasses.replace(
        default, **{name: getattr(parsed, name) for name in groups}, beam_args=tuple(beam_args) or default.beam_args
    )
    config = _with_absolute_paths(config)
    if not config.run.output:
        raise ValueError("--output is missing: name the folder that the run writes to")
    if not config.scan.input:
        raise ValueError(
            "--input is missing: name crawl files, tables or folders"
            if command in ("run", "scan")
            else f"{config.run.output} holds no run: start with `pagepairs run`"
        )
    return config


def _without_other_band(pair: PairConfig, argv: Sequence[str]) -> PairConfig:
    """Returns the earlier settings without the band that the flags replace by one of another kind."""
    given = {argument.split("=")[0] for argument in argv}
    if "--band" in given and not given & {"--low", "--high"}:
        return dataclasses.replace(pair, low=None, high=None)
    return dataclasses.replace(pair, band="") if given >= {"--low", "--high"} and "--band" not in given else pair


def _with_absolute_paths(config: Config) -> Config:
    """Returns the configuration as it means the same from every folder: config.json is read again from others."""

    def absolute(path: str) -> str:
        return os.path.abspath(path) if path and not is_remote(path) else path

    def absolute_encoder(spec: str) -> str:
        kind, colon, path = spec.partition(":")  # tflite:PATH, sscd:PATH
        return f"{kind}:{absolute(path)}" if colon else spec

    embed = dataclasses.replace(
        config.embed,
        encoder=",".join(map(absolute_encoder, config.embed.encoders)),
        encoder_weights=",".join(map(absolute, config.embed.weights)) if config.embed.encoder_weights else "",
        embeddings_from=absolute(config.embed.embeddings_from),
    )
    pair = dataclasses.replace(config.pair, band=absolute(config.pair.band), benchmark=tuple(map(absolute, config.pair.benchmark)))
    return dataclasses.replace(
        config,
        scan=dataclasses.replace(config.scan, input=tuple(map(absolute, config.scan.input)), block_list=absolute(config.scan.block_list)),
        embed=embed,
        pair=pair,
        run=dataclasses.replace(config.run, output=absolute(config.run.output)),
        beam_args=tuple(_with_absolute_values(config.beam_args)),
    )


def _with_absolute_values(beam_args: Sequence[str]) -> Iterator[str]:
    """Yields Beam's flags, those that name files of this machine with their whole path."""
    before = ""
    for argument in beam_args:
        flag, equals, path = argument.partition("=")
        if flag in _BEAM_FILES and equals:
            yield f"{flag}={_absolute(path)}"
        else:
            yield _absolute(argument) if before in _BEAM_FILES else argument
        before = argument


def _absolute(path: str) -> str:
    return os.path.abspath(path) if path and "://" not in path else path


def _read_config(path: str) -> Config:
    try:
        return config_from_json(read_json(path))
    except OSError as error:
        raise ValueError(f"--config {path}: {error.strerror}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"--config {path} is no config.json of pagepairs: {error}") from error


def config_from_json(value: dict[str, Any]) -> Config:
    """Returns the configuration that a config.json holds.

    Raises:
      ValueError: for a setting that this version does not know.
    """
    kinds = typing.get_type_hints(Config)
    groups: dict[str, Any] = {}
    for name, settings in value.items():
        if name == "beam_args":
            groups[name] = tuple(settings)
            continue
        known = {field.name for field in dataclasses.fields(kinds[name])} if name in kinds else set()
        unknown = set(settings) - known
        if unknown or name not in kinds:
            raise ValueError(f"no such setting: {', '.join(sorted(f'{name}.{key}' for key in unknown)) or name}")
        groups[name] = kinds[name](**{key: tuple(entry) if isinstance(entry, list) else entry for key, entry in settings.items()})
    return Config(**groups)


def _take(argv: Sequence[str], flag: str) -> tuple[list[str], str | None]:
    """Returns argv without `flag` and its value, and the value; `--flag value` and `--flag=value`.

    Raises:
      ValueError: if the flag stands there without a value.
    """
    rest, value = [], None
    arguments = iter(argv)
    for argument in arguments:
        if argument == flag:
            value = next(arguments, "--")
            if value.startswith("--"):
                raise ValueError(f"{flag} is missing its value; pagepairs COMMAND --help says what it takes")
        elif argument.startswith(f"{flag}="):
            value = argument.removeprefix(f"{flag}=")
        else:
            rest.append(argument)
    return rest, value


def join_values(argv: Sequence[str], flag: str) -> list[str]:
    """Gathers the values of several flags of one name behind one, where the parser would take the last only."""
    rest: list[str] = []
    values: list[str] = []
    inside = False
    for argument in argv:
        if argument == flag or argument.startswith(f"{flag}="):
            inside = True
            values += [argument.removeprefix(f"{flag}=")] if "=" in argument else []
        elif argument.startswith("-"):
            inside = False
            rest.append(argument)
        else:
            (values if inside else rest).append(argument)
    return [*rest, flag, *values] if values else rest


def _check_beam_flags(beam_args: Sequence[str], parsed: Any) -> None:
    """Refuses flags that nobody knows, and names the nearest."""
    given = [argument.split("=")[0] for argument in beam_args if argument.startswith("--")]
    if not given:
        if beam_args:
            raise ValueError(f"{beam_args[0]!r} belongs to no flag; pagepairs COMMAND --help lists the flags")
        return
    from pipeline.beam_flags import beam_flags, server_flags

    own = {
        f"--{field.name.replace('_', '-')}"
        for group in dataclasses.fields(parsed)
        for field in dataclasses.fields(getattr(parsed, group.name))
    }
    known = beam_flags()
    if not known.issuperset(given):
        known |= server_flags(beam_args)
    for flag in given:
        if flag not in known:
            near = difflib.get_close_matches(flag, sorted(own | known), n=1, cutoff=0.0)[0]
            raise ValueError(f"no flag {flag}; the nearest is {near}")
